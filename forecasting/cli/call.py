"""What one call of the command line shares: the settings behind its flags, its two consoles, how it stops."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from infra.configuration import Flag, LoadedSettings, load_settings

INTERRUPTED = 130
# Wide enough that no cell of a table is cut where the output is read by another program.
PIPE_WIDTH = 500
# A narrower terminal wraps lines by itself, which is ugly; cutting numbers to fit would be wrong.
MIN_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Call:
    """The global flags of a call; commands find it as `ctx.obj`."""

    config: Path | None = None

    def load(self, flags: dict[str, tuple[str, object]] | None = None) -> LoadedSettings:
        """Return the settings under `flags`: `{"ingest.step": ("--step", step)}`; a value of None is a flag not given.

        Raises:
            UsageError: a setting is wrong in the file, the environment or a flag.
        """
        given = {key: Flag(name, value) for key, (name, value) in (flags or {}).items() if value is not None}
        return load_settings(config=self.config, flags=given)


def console() -> Console:
    """Return the console of results, on stdout; it shows text as it is, names with brackets or colons included."""
    width = max(MIN_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Tell the user something that is no result, on stderr."""
    typer.echo(text, err=True)


@contextmanager
def interruptible(after: str) -> Iterator[None]:
    """End with exit code 130 on Ctrl-C and say `after`: what was kept, and what to run to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ngraphtide: stopped. {after}")
        raise typer.Exit(INTERRUPTED) from None
