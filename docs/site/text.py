"""Markdown in pieces."""

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; empty text where there is no row."""
    lines = [_row(cells) for cells in rows]
    if not lines:
        return ""
    return "\n".join([_row(titles), _row(["---"] * len(titles)), *lines]) + "\n"


def code(text: str) -> str:
    """Return text as code within a line."""
    return f"`{text}`" if text else ""


def block(language: str, text: str) -> str:
    """Return text as a block of code."""
    return f"```{language}\n{text}\n```\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
