"""Rows of a listing: a table for people, one JSON array for programs."""

import sys
from typing import Any

from rich.table import Table

from forecasting.cli.call import console, say


def show_rows(rows: list[dict[str, Any]], as_json: bool, nothing: str, hidden: str = "") -> None:
    """Print rows that have the same members; `nothing` is said where there is none, `hidden` is for programs alone."""
    if as_json:
        import msgspec  # noqa: PLC0415

        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    if not rows:
        say(nothing)
        return
    titles = [title for title in rows[0] if title != hidden]
    table = Table(box=None)
    for title in titles:
        table.add_column(title, no_wrap=True)
    for row in rows:
        cells = (row[title] for title in titles)
        table.add_row(
            *(", ".join(cell) if isinstance(cell, list) else "-" if cell is None else str(cell) for cell in cells)
        )
    console().print(table)
