"""`graphtide keys`: who may ask the forecast service for what."""

import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from forecasting.cli.call import Call, console, say
from forecasting.keys import Key, Keys, Scope
from forecasting.service_file import ServiceFile
from infra.steps import format_time

keys_app = typer.Typer(
    name="keys", help="API keys of the forecast service: create, list, rotate, revoke.", no_args_is_help=True
)
NameArgument = Annotated[str, typer.Argument(help="Name of the key.", show_default=False)]


class ScopeName(StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(keys_app)


def _file(ctx: typer.Context) -> ServiceFile:
    call: Call = ctx.obj
    return ServiceFile(call.load().values.api.service_db)


def _show_token(key: Key, token: str) -> None:
    say(f"Key {key.name!r} ({key.id}): {key.scope.name.lower()} on {', '.join(key.graphs)}.")
    say("This is shown once; keep it where secrets are kept:")
    sys.stdout.write(token + "\n")


@keys_app.command()
def create(
    ctx: typer.Context,
    name: NameArgument,
    graph: Annotated[
        list[str] | None,
        typer.Option("--graph", metavar="NAME", help="Graph it is for; NAME* for a prefix, * for all. Repeatable."),
    ] = None,
    scope: Annotated[ScopeName, typer.Option("--scope", help="read; write also starts and cancels jobs.")] = (
        ScopeName.READ
    ),
) -> None:
    """Make a key and print its token, once. From the first key on, the service answers nobody without one.

    Example: graphtide keys create dashboard --graph mathoverflow --scope read
    """
    with _file(ctx) as file:
        _show_token(*Keys(file).create(name, Scope[scope.name], graph or []))


@keys_app.command("list")
def list_keys(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the keys, without their secrets.

    Example: graphtide keys list --json
    """
    with _file(ctx) as file:
        found = Keys(file).all()
    if as_json:
        import msgspec  # noqa: PLC0415

        rows = [
            {
                "id": key.id,
                "name": key.name,
                "scope": key.scope.name.lower(),
                "graphs": key.graphs,
                "created": format_time(key.created_us),
                "revoked": None if key.revoked_us is None else format_time(key.revoked_us),
            }
            for key in found
        ]
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    if not found:
        say("There is no key: the service answers this machine only, and everyone on it. See: graphtide keys create")
        return
    table = Table(box=None)
    for title in ("id", "name", "scope", "graphs", "created", "revoked"):
        table.add_column(title, no_wrap=True)
    for key in found:
        revoked = "-" if key.revoked_us is None else format_time(key.revoked_us)
        row = (key.id, key.name, key.scope.name.lower(), ", ".join(key.graphs), format_time(key.created_us), revoked)
        table.add_row(*row)
    console().print(table)


@keys_app.command()
def rotate(ctx: typer.Context, name: NameArgument) -> None:
    """Give a key a new secret and print its token, once; the old one ends within `[api] poll_interval_s`.

    Example: graphtide keys rotate dashboard
    """
    with _file(ctx) as file:
        _show_token(*Keys(file).rotate(name))


@keys_app.command()
def revoke(ctx: typer.Context, name: NameArgument) -> None:
    """End a key, within `[api] poll_interval_s`.

    Example: graphtide keys revoke dashboard
    """
    with _file(ctx) as file:
        key = Keys(file).revoke(name)
    say(f"Key {key.name!r} ({key.id}) is revoked.")
