"""`graphtide doctor`: what this machine has, what is lost without it, and what to do."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from forecasting.cli.call import Call, console

_COLOURS = {"ok": "green", "note": "dim", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(doctor)


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at this machine: Python, torch, GPU, compiler, SQLite, store, models, data; say what to do.

    Ends with exit code 1 when something is missing that a command needs.

    Example: graphtide doctor --json
    """
    from forecasting.doctor import Status, examine  # noqa: PLC0415

    call: Call = ctx.obj
    findings = examine(call.load())
    failed = any(finding.status is Status.FAIL for finding in findings)
    if as_json:
        import msgspec  # noqa: PLC0415

        report = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            colour = _COLOURS[finding.status]
            advice = f"\n[dim]{finding.advice}[/]" if finding.advice else ""
            table.add_row(f"[{colour}]{finding.status}[/]", finding.name, f"{finding.found}{advice}")
        console().print(table)
    if failed:
        raise typer.Exit(1)
