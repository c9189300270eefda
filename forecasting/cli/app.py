"""The application: global flags, the commands, and what becomes of an error."""

import codecs
import errno
import io
import json
import logging
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from forecasting.cli import (
    alerts,
    backtest,
    bench,
    compress,
    datasets,
    deadletters,
    demo,
    doctor,
    export,
    forecast,
    ingest,
    keys,
    replay,
    report,
    schema,
    serve,
    store,
    store_admin,
    store_backup,
    store_influx,
    store_migrate,
    train,
    work,
)
from forecasting.cli.call import Call, say
from infra.errors import GraphtideError
from infra.telemetry import configure_logging

DEBUG_VARIABLE = "GRAPHTIDE_DEBUG"
TERMINATED = 128 + signal.SIGTERM


class _Commands(TyperGroup):
    """The commands; a reader of our output that has seen enough (`| head`) ends them without an error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise typer.Exit from None


app = typer.Typer(
    name="graphtide",
    cls=_Commands,
    help="Forecast how a social network evolves: events in, calibrated forecasts of its graph metrics out.",
    no_args_is_help=True,
    # Not "rich", which takes the [section] of a setting for a style and prints nothing of it.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_GROUPS = (
    *(
        demo,
        ingest,
        replay,
        deadletters,
        store,
        train,
        compress,
        export,
        forecast,
        backtest,
        report,
        alerts,
        serve,
        work,
        keys,
    ),
    *(bench, datasets, schema, doctor),
)
for group in _GROUPS:
    group.register(app)
store_commands = typer.Typer(
    name="store", help="Look after stores: copy, compare, project, back up, restore, migrate.", no_args_is_help=True
)
store_influx.register(store_commands)
store_admin.register(app, store_commands)
store_backup.register(store_commands)
store_migrate.register(store_commands)
app.add_typer(store_commands)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"graphtide {version('graphtide')}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="PATH", help="Settings file; else config.toml beside the call, else the packaged one."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside, on stderr.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    configure_logging(logging.INFO if verbose else logging.WARNING)
    ctx.obj = Call(config)


def _stop_on_sigterm(_signal: int, _frame: FrameType | None) -> NoReturn:
    # An exception, not the default death: temporary files are removed and the store is closed on the way out.
    sys.exit(TERMINATED)


def _end_by_signals() -> None:
    """Let a further signal end the process at once: what libraries do as it ends would make a traceback of it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Where the shell has it ignored it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop_on_sigterm)
    _escape_unshown()
    code = 0
    try:
        app(arguments, prog_name="graphtide")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except GraphtideError as error:
        _raise_in_debug(error)
        say(f"graphtide: {error}")
        code = error.exit_code
    except OSError as error:
        code = _unwritten(error)
    except Exception as error:  # noqa: BLE001 - the last resort, so that no user meets a traceback
        code = _unforeseen(error)
    finally:
        _end_by_signals()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        code = _unwritten(error)
    sys.exit(code)


def _escape_unshown() -> None:
    """Escape what the encoding of our output lacks, where printing it would end the command with its work done."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        codecs.register_error("graphtide.escape", _escaped)
        sys.stdout.reconfigure(errors="graphtide.escape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    # As JSON escapes it, so that JSON stays JSON.
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _unwritten(error: OSError) -> int:
    """Tell of a result that could not be written, where that is what went wrong; return the exit code."""
    if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT) or error.filename is not None:
        return _unforeseen(error)
    _drop_output()
    say(f"graphtide: the result cannot be written to standard output: {error.strerror}")
    return 1


def _drop_output() -> None:
    # Python flushes once more at exit and would complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unforeseen(error: Exception) -> int:
    _raise_in_debug(error)
    say(f"graphtide: this should not happen: {type(error).__name__}: {error}")
    say(f"  fix: run the command again with {DEBUG_VARIABLE}=1 and report what it prints")
    return 1


def _raise_in_debug(error: Exception) -> None:
    if os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}:
        raise error
