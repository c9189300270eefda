"""No query of a PostgreSQL store reads a table as a whole."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stream.store import open_writer
from stream.store.sql.sources import OWNED
from tests.servers.postgres import PostgresServer
from tests.unit.stream.store_queries import KEYS, QUERIES, filling

SERIES = "SELECT n FROM generate_series(1, {}) AS series (n)"
# A handful of rows, for which the server rightly asks no index.
SMALL = {"graphs", "sources"}


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    url = postgres_server.create_database()
    open_writer(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in filling(SERIES, "''"):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")
        yield connection
    postgres_server.drop_database(url)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def planned(connection: psycopg.Connection[Any], sql: str, parameters: tuple[object, ...]) -> list[dict[str, Any]]:
    statement = "EXPLAIN (FORMAT JSON) " + sql.replace("?", "%s").replace("{keys}", "= ANY(%s)")
    if "{keys}" in sql:
        parameters = (*parameters, KEYS)
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return list(nodes(row[0][0]["Plan"]))


@pytest.mark.parametrize("what", [*QUERIES, "claimed partitions"])
def test_it_uses_an_index(filled: psycopg.Connection[Any], what: str) -> None:
    steps = planned(filled, *({**QUERIES, "claimed partitions": (OWNED, (3,))}[what]))
    scans = [step for step in steps if step["Node Type"] == "Seq Scan" and step["Relation Name"] not in SMALL]
    assert scans == []
    assert any("Index" in step["Node Type"] for step in steps)


def test_a_query_that_would_read_all_is_told(filled: psycopg.Connection[Any]) -> None:
    steps = planned(filled, "SELECT * FROM snapshots WHERE events = 3", ())
    assert [step["Node Type"] for step in steps] == ["Seq Scan"]
