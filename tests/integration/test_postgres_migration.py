"""The schema of a PostgreSQL store is brought up in one transaction, while nobody writes it."""

import threading
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from infra.errors import StoreError
from stream.store import open_reader, open_writer
from stream.store.migrate import migrate_store
from stream.store.postgres_server import make_tables
from stream.store.sql.tables import STORE_SCHEMA
from tests.conftest import Ran
from tests.unit.stream.store_contract import begin
from tests.unit.stream.test_migrations import later

NEXT = STORE_SCHEMA + 1


def fill(url: str) -> None:
    with open_writer(url) as writer, writer.transaction():
        begin(writer, "town")


def test_steps_are_taken_as_a_whole_or_not_at_all(postgres_url: str) -> None:
    fill(postgres_url)
    with pytest.raises(StoreError, match="nowhere"):
        migrate_store(postgres_url, steps=later(fails=True), schema=NEXT)
    with open_reader(postgres_url) as reader:
        assert [info.name for info in reader.graphs()] == ["town"]
    done = migrate_store(postgres_url, steps=later(), schema=NEXT)
    assert (done.before, done.after, done.backup) == (STORE_SCHEMA, NEXT, None)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT x FROM more").fetchall() == [(7,)]
    for use in (open_reader, open_writer, migrate_store):
        with pytest.raises(StoreError, match=f"has schema {NEXT}") as refused:
            use(postgres_url)
        assert "upgrade graphtide" in str(refused.value)


def test_nothing_is_changed_while_somebody_writes_or_where_nothing_is(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        migrate_store(postgres_url)
    fill(postgres_url)
    with open_writer(postgres_url), pytest.raises(StoreError, match="another process is writing"):
        migrate_store(postgres_url, steps=later(), schema=NEXT)
    assert migrate_store(postgres_url).after == STORE_SCHEMA


def test_a_writer_that_is_about_to_end_is_waited_for(postgres_url: str) -> None:
    fill(postgres_url)
    with ExitStack() as writing:
        writing.enter_context(open_writer(postgres_url))
        ends = threading.Timer(0.5, writing.close)
        ends.start()
        assert migrate_store(postgres_url).after == STORE_SCHEMA
        ends.join()


def test_a_writer_that_starts_meanwhile_finds_the_new_schema(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres_url)

    def made(*arguments: Any) -> None:
        make_tables(*arguments)
        migrate_store(postgres_url, steps=later(), schema=NEXT)

    monkeypatch.setattr("stream.store.postgres.make_tables", made)
    with pytest.raises(StoreError, match=f"has schema {NEXT}"):
        open_writer(postgres_url)


def test_the_command_asks_for_a_backup_of_postgresql(graphtide, postgres_url: str) -> None:  # type: ignore[no-untyped-def]
    fill(postgres_url)
    asked: Ran = graphtide("store", "migrate", "--store", postgres_url)
    assert asked.code == 2
    assert "--have-backup" in asked.err
    done: Ran = graphtide("store", "migrate", "--store", postgres_url, "--have-backup")
    assert done.code == 0, done.err
    assert "nothing to do" in done.err
