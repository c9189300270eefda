"""The files of the service have a version: an older one is brought up when it is opened, a newer one is left alone."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from forecasting.bookkeeping.tables import SERVICE_SCHEMA
from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from stream.spool.file import SPOOL_SCHEMA, Spool
from tests.unit.stream.ingest_cases import dump


def test_a_service_file_from_before_reports_gets_their_tables_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    with ServiceFile(path) as file:
        Keys(file).create("reader", Scope.READ, ("*",))
    with closing(sqlite3.connect(path)) as connection:
        for name in ("reports", "report_files", "report_log", "report_schedules", "report_deliveries"):
            connection.execute(f"DROP TABLE {name}")
    with ServiceFile(path) as file:
        assert [key.name for key in Keys(file).all()] == ["reader"]
        assert file.rows("SELECT * FROM reports") == []
        assert file.rows("SELECT * FROM report_deliveries") == []


@pytest.mark.parametrize(("opening", "schema"), [(ServiceFile, SERVICE_SCHEMA), (Spool, SPOOL_SCHEMA)])
def test_a_file_of_a_newer_version_is_refused_untouched(
    tmp_path: Path, opening: Callable[[Path], ServiceFile | Spool], schema: int
) -> None:
    path = tmp_path / "file.db"
    opening(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema + 1}")
    before = dump(path)
    with pytest.raises(StoreError, match="this version") as refused:
        opening(path)
    assert "upgrade" in str(refused.value)
    assert dump(path) == before
