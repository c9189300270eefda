"""What tests of a store in PostgreSQL need of it and of its server."""

import threading
from collections.abc import Callable

import psycopg

from stream.store.records import SourceState
from stream.store.sql.writer import SqlWriter


def add_source(writer: SqlWriter, name: str = "kafka:events") -> SourceState:
    with writer.transaction():
        return writer.add_source(name, split_by_type=False)


def run_behind(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def wait_for_lock(url: str) -> None:
    """Return when some session waits for another."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2000):
            if connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                return
            connection.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("nobody waits")


def enable(writer: SqlWriter) -> None:
    with writer.transaction():
        writer.enable_projection("influxdb")
