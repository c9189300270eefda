"""The backup of a store: one file, as the store was at one moment, while ingestion goes on.

The offsets of a store stand in the same transactions as what was counted from them, so that one moment of it is whole:
what is restored goes on behind what it holds. The file is a SQLite store, whatever the store itself is kept in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.errors import StoreError
from infra.sqlite_copy import seal
from stream.store import open_reader, open_writer
from stream.store.copy import Copied, check_empty, copy_store, copy_tables
from stream.store.sql.database import ReadDatabase
from stream.store.sql.reader import SqlSnapshots
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sqlite import SqliteReadDatabase
from stream.store.sqlite_file import URL_PREFIX

# Called with how much is copied, of how much if that is known, and its unit.
OnCopied = Callable[[float, float | None, str], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """A store as it was when this was taken.

    Attributes:
        database: sees that moment.
    """

    database: ReadDatabase

    @property
    def schema(self) -> int:
        """The schema of the file that `write` makes."""
        return STORE_SCHEMA

    def write(self, path: Path, on_copied: OnCopied) -> Copied:
        """Write the store to a new file.

        Raises:
            StoreError: the store or the file failed.
        """
        if isinstance(self.database, SqliteReadDatabase):
            self.database.back_up(path, lambda done, total: on_copied(done, total, "pages"))
            infos = SqlSnapshots(self.database).graphs()
            return Copied(len(infos), sum(info.snapshots for info in infos), whole=True)
        with open_writer(f"{URL_PREFIX}{path}") as writer, writer.transaction():
            copied = copy_tables(self.database, writer, lambda rows: on_copied(rows, None, "rows"))
        seal(path)
        return copied


@contextmanager
def moment_of(url: str) -> Iterator[Moment]:
    """Lend a store of record as it is now; what is committed from here on is not in it.

    Raises:
        StoreError: there is no store, it cannot be read, or it is a projection.
    """
    with open_reader(url) as reader:
        if not isinstance(reader, SqlSnapshots):
            raise StoreError(
                "an InfluxDB is a projection; it is not backed up",
                place="[store] url",
                fix="name the store of record, which has positions and edges too; the projection is made of it again"
                " by graphtide store project --all",
            )
        with reader.database.frozen() as frozen:
            # The moment of a transaction is that of its first query.
            frozen.fetch("SELECT count(*) FROM graphs")
            yield Moment(frozen)


def check_room(url: str) -> None:
    """Make sure, before anything else is restored, that `load_backup` can fill a store; its tables are made.

    Raises:
        StoreError: the store has something already, or cannot be reached.
    """
    with open_writer(url) as writer:
        check_empty(writer)


def load_backup(path: Path, url: str, on_copied: OnCopied) -> Copied:
    """Copy the file of a backup into an empty store that is no file, such as one in PostgreSQL.

    Raises:
        StoreError: the store has something already, or either fails.
    """
    with open_reader(f"{URL_PREFIX}{path}") as reader, open_writer(url) as writer:
        return copy_store(reader, writer, lambda rows: on_copied(rows, None, "rows"))
