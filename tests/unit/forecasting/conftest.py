"""What tests of the service's records share: they run over a file and over a PostgreSQL database."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgres"])
def service_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Return a place for `[api] service_db` where nothing is yet."""
    if request.param == "sqlite":
        yield tmp_path / "deep" / "service.db"
    else:
        yield request.getfixturevalue("postgres_url")
