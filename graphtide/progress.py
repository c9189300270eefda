"""The progress bar of a job."""

from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from graphtide.results import Job


class Bar:
    """Shows how far a job is; a context manager.

    Args:
        job: which one.
        shown: whether anything is shown at all.
    """

    def __init__(self, job: Job, *, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, disable=not shown, transient=True)
        self._task = self._progress.add_task(f"Forecasting {job.graph}", total=job.horizon)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def at(self, steps: int) -> None:
        """Show that so many steps are done."""
        self._progress.update(self._task, completed=steps)
