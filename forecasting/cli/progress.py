"""Progress of long work, on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from forecasting.cli.call import say

LINE_INTERVAL_S = 10.0

# (done, total or None, the unit and how it goes)
Report = Callable[[float, float | None, str], None]


class Phase:
    """The progress of one of several phases: shown from its first report on, in the place of the phase before.

    Args:
        shown: holds what is shown now; closing it ends the display.
        title: what is being done.
    """

    def __init__(self, shown: ExitStack, title: str) -> None:
        self._shown = shown
        self._title = title
        self._report: Report | None = None

    def __call__(self, done: float, total: float | None, text: str) -> None:
        """Show how much is done, of how much if known, and the unit with a short note."""
        if self._report is None:
            # A terminal has room for one bar.
            self._shown.close()
            self._report = self._shown.enter_context(progress(self._title))
        self._report(done, total, text)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Yield a function that takes how much is done, of how much if known, and the unit with a short note."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, text="")

        def report(done: float, total: float | None, text: str) -> None:
            bar.update(task, completed=done, total=total, text=f"{done:,.0f} {text}")

        yield report


def _lines(title: str) -> Report:
    said_at_s = time.monotonic()

    def report(done: float, total: float | None, text: str) -> None:
        nonlocal said_at_s
        now_s = time.monotonic()
        if now_s - said_at_s < LINE_INTERVAL_S:
            return
        said_at_s = now_s
        share = f"{100 * done / total:.0f} %, {done:,.0f} of {total:,.0f}" if total else f"{done:,.0f}"
        say(f"{title}: {share} {text}")

    return report
