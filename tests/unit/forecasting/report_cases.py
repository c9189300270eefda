"""What tests of scheduled reports share: a schedule, a clock that they move, and processes over one file."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forecasting.reports.contents import ReportRequest
from forecasting.reports.deliveries import Deliveries
from forecasting.reports.records import Reports
from forecasting.reports.schedules import Schedule, Schedules
from forecasting.service_file import ServiceFile
from infra.settings import JobSettings, ReportSettings, TargetSettings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REQUEST = ReportRequest(100, 0, 20)
SETTINGS = ReportSettings(
    targets={
        "one": TargetSettings(kind="folder", path="a"),  # type: ignore[arg-type]
        "two": TargetSettings(kind="folder", path="b"),  # type: ignore[arg-type]
        "theirs": TargetSettings(kind="folder", path="c", graphs=["shop.*"]),  # type: ignore[arg-type]
    }
)
JOBS = JobSettings(lease_s=10, max_attempts=3)
DAILY = Schedule("daily", "town", "30 2 * * *", "Europe/Berlin", REQUEST, ("one", "two"))


def us(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


class Clock:
    def __init__(self, text: str) -> None:
        self.now = us(text)

    def __call__(self) -> int:
        return self.now

    def to(self, text: str) -> None:
        self.now = us(text)


class Scheduler:
    """One process: its own connection to the shared file."""

    def __init__(self, place: Path | str, clock: Clock) -> None:
        self.file = ServiceFile(place)
        self.schedules = Schedules(self.file, SETTINGS, clock)
        self.reports = Reports(self.file, SETTINGS, JOBS, clock)
        self.deliveries = Deliveries(self.file, SETTINGS, lease_s=60, clock=clock)


def queued(scheduler: Scheduler, clock: Clock, days: int = 1) -> None:
    scheduler.schedules.put(replace(DAILY, missed="all"), owner="")
    clock.to(f"2026-03-{26 + days}T12:00")
    scheduler.schedules.plan()
