"""What tests of the service's records share: they run over a file and over a PostgreSQL database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.forecasting.alert_cases import GrowingStore, Side


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
