"""The simulated disk: the real SQLite store, whose statements and commits fail when the world says so.

With several processes the same file plays a shared database server: transactions are serialized, claims decide who may
write, and there is no lock that keeps others out. A frozen process must not find that a lock has saved it.
"""

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import StoreError
from stream.store.sql.database import Column, Row
from stream.store.sql.writer import SqlWriter
from stream.store.sqlite import SqliteDatabase, SqliteReadDatabase
from stream.store.sqlite_file import connect_reader, connect_writer
from tests.simulator.fiber import Killed

_MAX_PAGES = 2**31


@dataclass
class Trouble:
    """What is about to go wrong in one process.

    Attributes:
        die_at: the number of the statement, inside a transaction, at which the process dies; None: it does not.
        die_after_commit: the next commit takes effect, and the process dies before it hears of it.
        lose_commit: the next commit takes effect, and the process hears that it failed.
        dead: nothing that the process does has an effect.
    """

    die_at: int | None = None
    die_after_commit: bool = False
    lose_commit: bool = False
    dead: bool = False


@dataclass
class Disk:
    """The file of a run's store, and what is known of those who write it.

    Attributes:
        path: the store.
        shared: it stands for a database server that several processes write.
        now_us: the simulated time of day.
        alive: the numbers of writers whose connections are open.
        leaders: role to the number of the writer that has it.
        is_full: there is no room for one page more.
    """

    path: Path
    shared: bool
    now_us: Callable[[], int]
    alive: set[int] = field(default_factory=set)
    leaders: dict[str, int] = field(default_factory=dict)
    is_full: bool = False
    _writers: int = 0
    # Connections that processes have closed, for reading and for writing: outside a transaction one is as good as a new
    # one, and has its statements prepared.
    _spare: list[sqlite3.Connection] = field(default_factory=list)
    _spare_writers: list[sqlite3.Connection] = field(default_factory=list)

    def next_number(self) -> int:
        """Return a number for a new writer."""
        self._writers += 1
        self.alive.add(self._writers)
        return self._writers

    def open_writer(self, trouble: Trouble, on_commit: Callable[["SimulatedDatabase"], None]) -> SqlWriter:
        """Open the store as a process does; `on_commit` is called after each commit that took effect."""
        kind = SharedDatabase if self.shared else SimulatedDatabase
        return SqlWriter(kind(self, trouble, on_commit), self.now_us)

    def connect_reader(self) -> sqlite3.Connection:
        """Return a connection that only reads."""
        return self._spare.pop() if self._spare else connect_reader(self.path)

    def spare(self, connection: sqlite3.Connection) -> None:
        """Take back a connection that only reads."""
        self._spare.append(connection)

    def connect_writer(self) -> sqlite3.Connection:
        """Return a connection that writes."""
        return self._spare_writers.pop() if self._spare_writers else connect_writer(self.path)

    def spare_writer(self, connection: sqlite3.Connection) -> None:
        """Take back a connection that writes; what it has not committed is gone."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._spare_writers.append(connection)

    def close(self) -> None:
        """Close what is spare."""
        for spare in (self._spare, self._spare_writers):
            while spare:
                spare.pop().close()

    def open_reader(self, writer: Callable[[], int]) -> "ReadingDatabase":
        """Open the store for reading; `writer` tells the number of the same process's writer."""
        return ReadingDatabase(self, writer)


class ReadingDatabase(SqliteReadDatabase):
    """The real read access, with the roles of a shared store."""

    def __init__(self, disk: Disk, writer: Callable[[], int]) -> None:
        self._disk = disk
        self._writer = writer
        super().__init__(disk.path)

    def _open(self) -> sqlite3.Connection:
        return self._disk.connect_reader()

    def close(self) -> None:
        """Release the connection."""
        self._disk.spare(self._connection)

    def elect(self, role: str) -> bool:
        """Return whether this process has a role; it gets it where nobody has."""
        writer = self._writer()
        return not self._disk.shared or self._disk.leaders.setdefault(role, writer) == writer


class _NoLock:
    def release(self) -> None:
        """Do nothing."""


class SimulatedDatabase(SqliteDatabase):
    """The real database of an exclusive store, without its lock file, as on a network filesystem."""

    def __init__(self, disk: Disk, trouble: Trouble, on_commit: Callable[["SimulatedDatabase"], None]) -> None:
        self._disk = disk
        self._trouble = trouble
        self._on_commit = on_commit
        self._lock = _NoLock()  # type: ignore[assignment]
        self._is_new = False
        self._epoch = None
        self._number = 0
        self._next_node_id = None
        self._limited = False
        SqliteReadDatabase.__init__(self, disk.path)
        self.writer = disk.next_number()
        self.peek(f"PRAGMA max_page_count = {_MAX_PAGES}")

    def _open(self) -> sqlite3.Connection:
        return self._disk.connect_writer()

    def peek(self, sql: str) -> list[Row]:
        """Return the rows of a query that nothing disturbs."""
        return self._connection.execute(sql).fetchall()

    def fetch(self, sql: str, parameters: Any = ()) -> list[Row]:
        """Run a statement, if the process lives through it."""
        self._strike()
        return super().fetch(sql, parameters)

    def begin(self) -> None:
        """Begin a transaction."""
        self._limit()
        super().begin()

    def commit(self) -> None:
        """Commit, with what may happen just then."""
        super().commit()
        self._on_commit(self)
        if self._trouble.die_after_commit:
            self._trouble.dead = True
            raise Killed
        if self._trouble.lose_commit:
            self._trouble.lose_commit = False
            raise StoreError("the connection was lost in a commit", place=self.name, fix="nothing: a simulation")

    def close(self) -> None:
        """Close the connection; what was not committed is gone."""
        self._disk.alive.discard(self.writer)
        self._disk.leaders = {role: who for role, who in self._disk.leaders.items() if who != self.writer}
        self._disk.spare_writer(self._connection)

    def _many(self, sql: str, columns: Mapping[str, Column]) -> None:
        self._strike()
        super()._many(sql, columns)

    def _strike(self) -> None:
        trouble = self._trouble
        if trouble.dead:
            raise Killed
        if trouble.die_at is not None and self._connection.in_transaction:
            trouble.die_at -= 1
            if trouble.die_at < 0:
                trouble.dead = True
                raise Killed

    def _limit(self) -> None:
        """Give SQLite no page more, or all that it wants, so that it runs out of space by itself."""
        if self._disk.is_full != self._limited:
            pages = self.peek("PRAGMA page_count")[0][0] if self._disk.is_full else _MAX_PAGES
            self.peek(f"PRAGMA max_page_count = {pages}")
            self._limited = self._disk.is_full


class SharedDatabase(SimulatedDatabase):
    """The same file as a server that several processes write: numbers of writers and roles instead of an epoch."""

    exclusive = False

    @property
    def number(self) -> int:
        """The number of this writer."""
        return self.writer

    def fetch(self, sql: str, parameters: Any = ()) -> list[Row]:
        """Run a statement; the whole store is locked in a transaction, so no row has to be."""
        return super().fetch(sql.replace(" FOR UPDATE", ""), parameters)

    def begin(self) -> None:
        """Begin a transaction; ids may have been given by others since the last one."""
        self._limit()
        self._next_node_id = None
        self.fetch("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit."""
        self._epoch = self._number
        super().commit()

    def alive(self, number: int) -> bool:
        """Return whether the writer of that number has its connection."""
        return number in self._disk.alive


def make_template(path: Path) -> None:
    """Write an empty store, for `copy_template`: to make tables takes longer than to copy them."""
    path.unlink(missing_ok=True)
    database = SqliteDatabase(path)
    database.begin()
    database.commit()
    database.fetch("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def copy_template(template: Path, path: Path) -> None:
    """Make a new empty store at `path`."""
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        name.unlink(missing_ok=True)
    shutil.copyfile(template, path)
