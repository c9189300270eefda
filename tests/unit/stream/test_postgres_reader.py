"""Reading PostgreSQL over connections that are cut while they are idle: each answer is whole and of one moment."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors

from infra.errors import StoreError
from stream.store import postgres
from stream.store.postgres import PostgresReadDatabase
from stream.store.sql.database import Row

ROWS: list[Row] = [(number,) for number in range(5)]


class FakeConnection:
    """Answers everything with `ROWS`, until it is `cut`."""

    description = "one column"

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.cut_after_rows: int | None = None
        self.error: psycopg.Error | None = None
        self.closed = False

    def cut(self, *, after_rows: int = 0) -> None:
        self.cut_after_rows = after_rows

    def execute(self, sql: bytes, parameters: Sequence[object]) -> "FakeConnection":
        self.asked.append(sql)
        self.fetched = list(self.stream(sql, parameters, size=1))
        return self

    def fetchall(self) -> list[Row]:
        return self.fetched

    @contextmanager
    def cursor(self, *, binary: bool) -> "Iterator[FakeConnection]":
        yield self

    def stream(self, sql: bytes, parameters: Sequence[object], *, size: int) -> Iterator[Row]:
        if self.error is not None:
            raise self.error
        for number, row in enumerate(ROWS):
            if self.closed or number == self.cut_after_rows:
                self.closed = True
                raise errors.AdminShutdown("terminating connection due to administrator command")
            yield row

    def close(self) -> None:
        self.closed = True


class FakeServer:
    """Keeps the connections that were opened; those to come can be cut from the start."""

    def __init__(self) -> None:
        self.opened: list[FakeConnection] = []
        self.cuts_new = False

    def connect(self, url: str, *, read_only: bool) -> FakeConnection:
        self.opened.append(FakeConnection())
        if self.cuts_new:
            self.opened[-1].cut()
        return self.opened[-1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    server = FakeServer()
    monkeypatch.setattr(postgres, "connect", server.connect)
    return server


@pytest.fixture
def database(server: FakeServer) -> PostgresReadDatabase:
    return PostgresReadDatabase("postgresql://host/name")


def read_all(database: PostgresReadDatabase) -> list[Row]:
    return [row for page in database.pages("SELECT", (), 2) for row in page]


def test_what_meets_a_cut_connection_is_asked_once_more(server: FakeServer, database: PostgresReadDatabase) -> None:
    server.opened[0].cut()
    assert database.fetch("SELECT") == ROWS
    server.opened[1].cut()
    assert read_all(database) == ROWS
    assert read_all(database) == ROWS
    assert len(server.opened) == 3


def test_an_answer_that_was_given_out_in_part_is_not_begun_anew(
    server: FakeServer, database: PostgresReadDatabase
) -> None:
    server.opened[0].cut(after_rows=3)
    pages = database.pages("SELECT", (), 2)
    assert next(pages) == ROWS[:2]
    with pytest.raises(StoreError, match="cannot be reached: terminating connection"):
        next(pages)
    assert len(server.opened) == 1
    assert read_all(database) == ROWS


@pytest.mark.parametrize("read", [read_all, lambda database: database.fetch("SELECT")])
def test_a_new_connection_that_is_cut_too_is_an_outage(
    server: FakeServer, database: PostgresReadDatabase, read
) -> None:  # type: ignore[no-untyped-def]
    server.opened[0].cut()
    server.cuts_new = True
    for opened in (2, 3):
        with pytest.raises(StoreError, match="cannot be reached"):
            read(database)
        assert len(server.opened) == opened


def test_a_refusal_over_a_connection_that_lives_is_final(server: FakeServer, database: PostgresReadDatabase) -> None:
    server.opened[0].error = errors.QueryCanceled("canceling statement due to statement timeout")
    with pytest.raises(StoreError, match="statement timeout"):
        database.fetch("SELECT")
    assert len(server.opened) == 1


def test_a_moment_of_the_store_that_was_lost_is_not_mixed_with_another(
    server: FakeServer, database: PostgresReadDatabase
) -> None:
    with database.frozen() as frozen:
        assert frozen.fetch("SELECT") == ROWS
        server.opened[-1].cut()
        for _ in range(2):
            with pytest.raises(StoreError, match="cannot be reached"):
                frozen.fetch("SELECT")
            with pytest.raises(StoreError, match="cannot be reached"):
                next(frozen.pages("SELECT", ()))
    assert len(server.opened) == 2
