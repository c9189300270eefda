"""No query of a SQLite store reads a table as a whole."""

import json
import re
import sqlite3
from collections.abc import Iterator

import pytest

from stream.store import open_writer
from tests.unit.stream.store_queries import KEYS, QUERIES, filling

# A handful of rows.
SORTED = {"what feeds a graph"}
SERIES = "WITH RECURSIVE s (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("plans") / "store.db"
    with open_writer(f"sqlite:///{path}") as writer, writer.transaction():
        for statement in filling(SERIES, "x''"):
            writer.database.fetch(statement)
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


@pytest.mark.parametrize("what", QUERIES)
def test_it_uses_an_index(filled: sqlite3.Connection, what: str) -> None:
    sql, parameters = QUERIES[what]
    if "{keys}" in sql:
        sql = sql.format(keys="IN (SELECT value FROM json_each(?))")
        parameters = (*parameters, json.dumps(KEYS.tolist()))
    plan = [row[3] for row in filled.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert any(
        re.match(r"SEARCH .* USING (PRIMARY KEY|INTEGER PRIMARY KEY|(COVERING )?INDEX)", line) for line in plan
    ), plan
    # In order of an index, up to the limit.
    scans = [line for line in plan if line.startswith("SCAN") and "json_each" not in line]
    assert all("USING INDEX dead_letters_to_deliver" in line for line in scans), plan
    assert what in SORTED or not any("TEMP B-TREE" in line for line in plan), plan


def test_a_query_that_would_read_all_is_told(filled: sqlite3.Connection) -> None:
    plan = [row[3] for row in filled.execute("EXPLAIN QUERY PLAN SELECT * FROM snapshots WHERE events = 3")]
    assert plan == ["SCAN snapshots"]
