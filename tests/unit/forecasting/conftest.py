"""What tests of the service's records share: they run over a file and over a PostgreSQL database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.forecasting.alert_cases import GrowingStore, Side
from tests.unit.forecasting.report_cases import Clock, Scheduler


@pytest.fixture(params=["sqlite", "postgres"])
def service_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Return a place for `[api] service_db` where nothing is yet."""
    if request.param == "sqlite":
        yield tmp_path / "deep" / "service.db"
    else:
        yield request.getfixturevalue("postgres_url")


@pytest.fixture
def store() -> GrowingStore:
    """Return a store that tests of alerts let grow."""
    return GrowingStore()


@pytest.fixture
def side(tmp_path: Path, store: GrowingStore, service_db: Path | str) -> Iterator[Side]:
    """Yield a process that watches it."""
    found = Side(tmp_path, store, service_db)
    yield found
    found.file.close()


@pytest.fixture
def clock() -> Clock:
    """Return a clock that tests of scheduled reports move."""
    return Clock("2026-03-27T00:00")


@pytest.fixture
def scheduler(service_db: Path | str, clock: Clock) -> Iterator[Scheduler]:
    """Yield a process that makes reports by it."""
    found = Scheduler(service_db, clock)
    yield found
    found.file.close()
