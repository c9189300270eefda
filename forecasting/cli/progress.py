"""Progress of long work, on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from forecasting.cli.call import say

LINE_INTERVAL_S = 5.0

# (done, total or None, a word on how it goes)
Report = Callable[[float, float | None, str], None]


@contextmanager
def progress(title: str, unit: str) -> Iterator[Report]:
    """Yield a function that takes how much is done, of how much if known, and a short note."""
    if sys.stderr.isatty():
        with _bar(title, unit) as report:
            yield report
    else:
        yield _lines(title, unit)


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[amount]} {task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, amount="", note="")

        def report(done: float, total: float | None, note: str) -> None:
            bar.update(task, completed=done, total=total, amount=f"{done:,.0f} {unit}", note=note)

        yield report


def _lines(title: str, unit: str) -> Report:
    said_at_s = time.monotonic()

    def report(done: float, total: float | None, note: str) -> None:
        nonlocal said_at_s
        now_s = time.monotonic()
        if now_s - said_at_s < LINE_INTERVAL_S:
            return
        said_at_s = now_s
        amount = f"{done:,.0f} of {total:,.0f} {unit} ({100 * done / total:.0f} %)" if total else f"{done:,.0f} {unit}"
        say(" ".join(filter(None, [f"{title}:", amount, note])))

    return report
