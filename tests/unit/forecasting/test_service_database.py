"""The service's books in PostgreSQL: lost sessions, other programs' tables, one clock, one transaction at a time."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from forecasting.bookkeeping import postgres_server as limits
from forecasting.bookkeeping.tables import SERVICE_SCHEMA
from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile, name_of
from infra.errors import StoreError, UsageError
from infra.settings import Settings
from tests.servers.postgres import PostgresServer


@pytest.fixture
def file(postgres_url: str) -> Iterator[ServiceFile]:
    with ServiceFile(postgres_url) as opened:
        yield opened


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def end_sessions(url: str) -> None:
    """End every session of the database but this one, as a restart of the server does."""
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    execute(url, f"SELECT pg_terminate_backend(pid) {others}")


def names(file: ServiceFile) -> list[str]:
    return [key.name for key in Keys(file).all()]


def test_a_lost_session_is_opened_anew(file: ServiceFile, postgres_url: str) -> None:
    Keys(file).create("a", Scope.READ, ["*"])
    end_sessions(postgres_url)
    assert names(file) == ["a"]
    end_sessions(postgres_url)
    Keys(file).create("b", Scope.READ, ["*"])
    assert names(file) == ["a", "b"]


def test_a_transaction_that_loses_its_session_fails_and_leaves_nothing(file: ServiceFile, postgres_url: str) -> None:
    insert = "INSERT INTO keys (id, name, secret_hash, scope, graphs, created_us) VALUES (?, ?, ?, 'read', '[]', 0)"
    with pytest.raises(StoreError, match="cannot be reached"), file.transaction() as connection:
        connection.execute(insert, ("1", "first", b""))
        end_sessions(postgres_url)
        connection.execute(insert, ("2", "second", b""))
    assert names(file) == []
    with file.transaction() as connection:
        connection.execute(insert, ("3", "third", b""))
    assert names(file) == ["third"]


def test_a_session_that_ends_before_the_commit_is_no_success(file: ServiceFile, postgres_url: str) -> None:
    with pytest.raises(StoreError), file.transaction() as connection:
        connection.execute("UPDATE keys SET name = 'x'")
        end_sessions(postgres_url)
    with pytest.raises(StoreError), file.transaction() as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT no_such_column FROM keys")
        # The server undoes what is committed behind a failure, and says so only in the status.
    assert names(file) == []


def test_transactions_of_all_processes_come_one_at_a_time(file: ServiceFile, postgres_url: str) -> None:
    Keys(file).create("0", Scope.READ, ["*"])

    def count_up() -> None:
        with ServiceFile(postgres_url) as own:
            for _ in range(25):
                with own.transaction() as connection:
                    (number,) = connection.execute("SELECT created_us FROM keys").fetchone()
                    connection.execute("UPDATE keys SET created_us = ?", (number + 1,))

    with file.transaction() as connection:
        connection.execute("UPDATE keys SET created_us = 0")
    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert file.rows("SELECT created_us FROM keys") == [(100,)]


def test_who_holds_the_lock_too_long_is_told_of_and_reads_go_on(
    file: ServiceFile, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_WAIT_S", 0.05)
    with ServiceFile(postgres_url) as other, file.transaction():
        with pytest.raises(StoreError, match="another process has held it"), other.transaction():
            raise AssertionError("two transactions at a time")
        assert names(other) == []
    Keys(file).create("after", Scope.READ, ["*"])


def test_books_in_two_schemas_do_not_wait_for_each_other(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCK_WAIT_S", 0.05)
    execute(postgres_url, "CREATE SCHEMA a; CREATE SCHEMA b")
    places = [f"{postgres_url}?options=-csearch_path%3D{name}" for name in ("a", "b")]
    with ServiceFile(places[0]) as one, ServiceFile(places[1]) as two, one.transaction():
        Keys(two).create("mine", Scope.READ, ["*"])
        assert (names(one), names(two)) == ([], ["mine"])


def test_processes_that_start_at_once_make_the_tables_once(postgres_url: str) -> None:
    failures: list[Exception] = []

    def start() -> None:
        try:
            ServiceFile(postgres_url).close()
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert execute(postgres_url, "SELECT version FROM service_schema") == [(SERVICE_SCHEMA,)]


def test_leases_take_the_clock_of_the_server(file: ServiceFile, postgres_url: str) -> None:
    ((before,),) = execute(postgres_url, "SELECT extract(epoch FROM clock_timestamp()) * 1000000")
    found = file.now_us()
    ((after,),) = execute(postgres_url, "SELECT extract(epoch FROM clock_timestamp()) * 1000000")
    assert before <= found <= after  # type: ignore[operator]
    with file.transaction():
        assert file.now_us() > found


def test_another_programs_tables_are_left_alone(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TABLE reports (id BIGINT)")
    with pytest.raises(StoreError, match="another program") as caught:
        ServiceFile(postgres_url)
    assert "search_path" in str(caught.value)
    found = execute(postgres_url, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
    assert found == [("reports",)]


def test_a_newer_versions_books_are_refused_and_tables_that_lack_are_made(postgres_url: str) -> None:
    with ServiceFile(postgres_url) as file:
        Keys(file).create("kept", Scope.READ, ["*"])
    execute(postgres_url, "DROP TABLE alert_log")
    with ServiceFile(postgres_url) as file:
        assert file.rows("SELECT rowid FROM alert_log") == []
        assert names(file) == ["kept"]
    execute(postgres_url, f"UPDATE service_schema SET version = {SERVICE_SCHEMA + 1}")
    with pytest.raises(StoreError, match="this version") as caught:
        ServiceFile(postgres_url)
    assert "upgrade" in str(caught.value)


def test_text_with_a_nul_is_not_found_instead_of_a_failure(file: ServiceFile) -> None:
    assert file.rows("SELECT 1 FROM jobs WHERE id = ?", ("a\0b",)) == []


def test_a_server_that_is_away_is_told_of_without_the_password_and_found_again(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    url = postgres_url.replace("graphtide@", "graphtide:sesame@")
    with ServiceFile(url) as file:
        postgres_server.kill()
        for _ in range(2):
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                names(file)
            assert "sesame" not in str(caught.value)
            assert "[api] service_db" in str(caught.value)
        with pytest.raises(StoreError) as caught, file.transaction():
            raise AssertionError("there is no server")
        postgres_server.heal()
        until = time.monotonic() + 60
        while True:
            try:
                assert names(file) == []
                break
            except StoreError:
                assert time.monotonic() < until
                time.sleep(0.05)
        assert file.name == name_of(url)
        assert "sesame" not in file.name


def test_a_server_that_stands_still_is_waited_for_no_longer_than_a_statement_may_take(
    postgres_server: PostgresServer, file: ServiceFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((backend,),) = file.rows("SELECT pg_backend_pid()")
    os.kill(backend, signal.SIGSTOP)
    try:
        monkeypatch.setattr(limits, "STATEMENT_S", 0.2)
        # A new session is answered; a transaction that the old one was in would be undone.
        assert names(file) == []
        postgres_server.pause()
        with pytest.raises(StoreError, match="cannot be reached"):
            names(file)
    finally:
        monkeypatch.undo()
        os.kill(backend, signal.SIGCONT)


def test_a_transaction_that_is_not_answered_fails(file: ServiceFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATEMENT_S", 0.2)
    with pytest.raises(StoreError, match="no answer in"), file.transaction() as connection:
        connection.execute("SELECT pg_sleep(30)")
    monkeypatch.undo()
    assert names(file) == []


@pytest.mark.parametrize("wrong", ["mysql://u:sesame@h/db", "influxdb://h:8086/o/b", 7])
def test_what_is_neither_a_path_nor_such_a_url_is_refused_without_the_password(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"\[api\] service_db") as caught:
        Settings(api={"service_db": wrong})  # type: ignore[arg-type]
    assert "sesame" not in str(caught.value)
    assert "fix:" in str(caught.value)


def test_a_url_that_cannot_be_read_is_refused_without_the_password() -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        ServiceFile("postgresql://u:sesame%@h:x/db")
    assert "sesame" not in str(caught.value)
    assert "[api] service_db" in str(caught.value)
