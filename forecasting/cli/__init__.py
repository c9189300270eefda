"""The command line: one file a group of commands, joined in `app`.

What takes long to import (numpy, Arrow, torch) is imported inside the command that needs it.
"""

from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process; see `forecasting.cli.app.main`."""
    try:
        from forecasting.cli.app import main as run  # noqa: PLC0415 - so that Ctrl-C meanwhile is no traceback

        run(arguments)
    except KeyboardInterrupt:
        # A second Ctrl-C, too, in the middle of what the first one ends.
        raise SystemExit(130) from None


__all__ = ["main"]
