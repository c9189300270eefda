"""`graphtide schema`: the JSON Schema of what Graphtide reads."""

import json
import sys

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    commands = typer.Typer(help="Print a JSON Schema, for producers and schema registries.", no_args_is_help=True)
    commands.callback()(_keep_the_group)
    commands.command("event")(event)
    app.add_typer(commands, name="schema")


def event() -> None:
    """Print the JSON Schema (draft 2020-12) of an event.

    Example: graphtide schema event > event.schema.json
    """
    sys.stdout.write(event_schema_text())


def event_schema_text() -> str:
    """Return the schema as the text that is published."""
    from stream.event_schema import event_schema  # noqa: PLC0415 - numpy is not needed for --help

    return json.dumps(event_schema(), indent=2) + "\n"


def _keep_the_group() -> None:
    """Print a JSON Schema, for producers and schema registries."""  # without it, typer makes one command of the group
