"""The command line, from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from docs.site.text import block, code, table
from forecasting.cli.app import app

_EXAMPLE = "Example: "


def page() -> str:
    """Return the page of all commands."""
    root = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        "Made from `graphtide --help` and the help of every command. Each ends with 0 when it is done, 1 when it"
        " failed, 2 when the call is wrong, 130 after Ctrl-C, 143 after SIGTERM. Results go to stdout, everything"
        " else to stderr.\n",
        "## graphtide\n",
        table(("option", "meaning"), _parameters(root, "graphtide", "option")),
    ]
    for path, command in sorted(commands(root)):
        parts += _command(path, command)
    return "\n".join(part for part in parts if part)


# Typer brings a copy of Click or uses the one that is installed, as its version has it: commands are known by what they
# have, not by their class.
def commands(group: Any, path: str = "graphtide") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{path} {name}", command
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def examples(command: Any) -> list[str]:
    """Return the examples of a command's help."""
    lines = inspect.cleandoc(command.help or "").splitlines()
    return [line.removeprefix(_EXAMPLE) for line in lines if line.startswith(_EXAMPLE)]


def _command(path: str, command: Any) -> list[str]:
    text = inspect.cleandoc(command.help or "")
    prose = "\n".join(line for line in text.splitlines() if not line.startswith(_EXAMPLE)).strip()
    context = _context(command, path)
    return [
        f"## {path}\n",
        prose.replace("<", "\\<") + "\n",
        block("text", " ".join((path, *map(_piece, command.collect_usage_pieces(context))))),
        *(block("sh", example) for example in examples(command)),
        table(("argument", "meaning"), _parameters(command, path, "argument")),
        table(("option", "meaning"), _parameters(command, path, "option")),
    ]


def _piece(text: str) -> str:
    """Return an argument as a usage line has it: without the braces of one that is needed.

    Of several values it has dots, unless it says itself how many there are.
    """
    text = re.sub(r"^\{(.*)\}", r"\1", text)
    return text.removesuffix("...") if "…" in text or " " in text else text


def _parameters(command: Any, path: str, kind: str) -> Iterator[tuple[str, str]]:
    context = _context(command, path)
    for parameter in command.params:
        if parameter.param_type_name == kind:
            record = parameter.get_help_record(context)
            if record is not None:
                yield code(" ".join(record[0].split())), record[1]


def _context(command: Any, path: str) -> Any:
    return command.make_context(path, [], resilient_parsing=True)
