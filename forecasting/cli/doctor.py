"""`graphtide doctor`: what this machine has, what is lost without it, and what to do."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

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
        report = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            found = Text(finding.found)
            if finding.advice:
                found.append(f"\n{finding.advice}", style="dim")
            table.add_row(Text(finding.status, style=_COLOURS[finding.status]), finding.name, found)
        console().print(table)
    if failed:
        raise typer.Exit(1)
