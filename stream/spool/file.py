"""The file of the spool: requests in their order, acknowledged once they are on the disk."""

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from infra.errors import StoreError
from infra.own_sqlite import begun, open_own
from stream.spool.records import Request

SPOOL_SCHEMA = 1
# "GrSp": tells this file from a store and from any other SQLite database.
APPLICATION_ID = 0x47725370
_TABLES = f"""
CREATE TABLE spool (id TEXT NOT NULL, bytes INTEGER NOT NULL) STRICT;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- never given twice, also after a deletion
    graph TEXT NOT NULL,
    records BLOB,                               -- MessagePack of the records, NULL once the store has them
    size INTEGER NOT NULL,                      -- bytes of `records`
    received_us INTEGER NOT NULL,
    owner TEXT NOT NULL,                        -- id of the API key, '' where the service has none
    idempotency_key TEXT,
    digest BLOB NOT NULL,                       -- of graph and body: another request with the same key is refused
    reply BLOB NOT NULL,                        -- what was answered
    UNIQUE (owner, idempotency_key)
) STRICT;
CREATE INDEX requests_waiting ON requests (number) WHERE records IS NOT NULL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SPOOL_SCHEMA};
"""
# Came later, and an older version neither needs nor minds it: finds the answers whose time is over among all others.
_ANSWERS_BY_AGE = "CREATE INDEX IF NOT EXISTS requests_by_age ON requests (received_us) WHERE records IS NULL"


class SpoolFullError(StoreError):
    """There is no room: nothing was written. `on_disk` tells the disk from the limit of the spool."""

    def __init__(self, message: str, *, on_disk: bool) -> None:
        super().__init__(message, place="[spool] path", fix="free some space, or let graphtide ingest spool go on")
        self.on_disk = on_disk


class KeyReusedError(Exception):
    """The idempotency key stands for another request."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was kept of a request.

    Attributes:
        reply: the answer that was given first.
        is_new: False where the request had been taken before.
    """

    reply: bytes
    is_new: bool


class Spool:
    """The open spool; its methods may be called from several threads, and several processes open it.

    Args:
        path: where it lies; made where there is none, readable by its owner alone.

    Raises:
        StoreError: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._translated():
            self._connection = open_own(path)
        try:
            with self._translated():
                self._prepare()
                (self.id,) = self._connection.execute("SELECT id FROM spool").fetchone()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    def append(
        self,
        graph: str,
        records: Sequence[bytes],
        reply: bytes,
        *,
        owner: str,
        idempotency_key: str | None,
        digest: bytes,
        max_bytes: int,
    ) -> Receipt:
        """Keep a request; it is on the disk when this returns, or nothing of it is.

        Args:
            graph: the graph of its events.
            records: as they came.
            reply: what it is answered with, now and when it comes again.
            owner, idempotency_key: who sent it, and the key by which it is known again; None for none.
            digest: of all that the key has to stand for.
            max_bytes: bytes of records that may wait.

        Raises:
            KeyReusedError: the key stands for another request.
            SpoolFullError: there is no room.
            StoreError: the file cannot be written.
        """
        packed = msgspec.msgpack.encode(records)
        with self._transaction() as connection:
            if idempotency_key is not None:
                found = connection.execute(
                    "SELECT digest, reply FROM requests WHERE owner = ? AND idempotency_key = ?",
                    (owner, idempotency_key),
                ).fetchone()
                if found is not None:
                    if found[0] != digest:
                        raise KeyReusedError
                    return Receipt(found[1], is_new=False)
            (waiting,) = connection.execute("SELECT bytes FROM spool").fetchone()
            if waiting + len(packed) > max_bytes:
                raise SpoolFullError(f"{waiting} bytes wait for ingestion already", on_disk=False)
            connection.execute(
                "INSERT INTO requests (graph, records, size, received_us, owner, idempotency_key, digest, reply)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (graph, packed, len(packed), time.time_ns() // 1000, owner, idempotency_key, digest, reply),
            )
            connection.execute("UPDATE spool SET bytes = bytes + ?", (len(packed),))
        return Receipt(reply, is_new=True)

    def waiting(self, after: int, max_records: int) -> list[Request]:
        """Return requests behind number `after`, in order: one at least if there is one, then up to `max_records`.

        Raises:
            StoreError: the file cannot be read, or is damaged.
        """
        found: list[Request] = []
        n_records = 0
        with self._lock, self._translated():
            rows = self._connection.execute(
                "SELECT number, graph, records, received_us FROM requests"
                " WHERE number > ? AND records IS NOT NULL ORDER BY number",
                (after,),
            )
            for number, graph, packed, received_us in rows:
                try:
                    records = msgspec.msgpack.decode(packed, type=tuple[bytes, ...])
                except msgspec.DecodeError as error:
                    raise StoreError(
                        f"request {number} of the spool {self.path} is damaged: {error}",
                        fix="restore the file from a backup, or move it away: what it holds is not in the store yet",
                    ) from error
                if found and n_records + len(records) > max_records:
                    break
                found.append(Request(number, graph, records, received_us))
                n_records += len(records)
            rows.close()
        return found

    def drained(self, number: int, *, keep_s: float) -> None:
        """Let go of the records up to request `number`: the store has them. Answers stay for `keep_s` seconds.

        Raises:
            StoreError: the file cannot be written.
        """
        before_us = int((time.time() - keep_s) * 1e6)
        with self._transaction() as connection:
            (size,) = connection.execute(
                "SELECT coalesce(sum(size), 0) FROM requests WHERE number <= ? AND records IS NOT NULL", (number,)
            ).fetchone()
            connection.execute("UPDATE spool SET bytes = bytes - ?", (size,))
            # Without a key, a request is not known again.
            connection.execute(
                "DELETE FROM requests WHERE number <= ? AND records IS NOT NULL AND idempotency_key IS NULL", (number,)
            )
            connection.execute(
                "UPDATE requests SET records = NULL WHERE number <= ? AND records IS NOT NULL", (number,)
            )
            connection.execute("DELETE FROM requests WHERE records IS NULL AND received_us < ?", (before_us,))

    def _prepare(self) -> None:
        application_id = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if application_id not in {0, APPLICATION_ID} or version > SPOOL_SCHEMA:
            raise self._foreign()
        # Several processes write; a write-ahead log would need a newer SQLite than many machines have.
        self._connection.execute("PRAGMA journal_mode = TRUNCATE")
        self._connection.execute("PRAGMA synchronous = FULL")
        with begun(self._connection) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO spool VALUES (?, 0)", (secrets.token_hex(8),))
            elif connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise self._foreign()
            connection.execute(_ANSWERS_BY_AGE)

    def _foreign(self) -> StoreError:
        return StoreError(
            f"{self.path} is no spool of this version", place="[spool] path", fix="name another file, or upgrade"
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated(), begun(self._connection) as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                raise SpoolFullError(f"no space left to write the spool {self.path}", on_disk=True) from error
            raise StoreError(
                f"the spool {self.path} cannot be used: {error}",
                place="[spool] path",
                fix="check that the file is ours, that its folder is writable and that the disk has space",
            ) from error
