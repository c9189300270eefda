"""Snapshot stores: the reading contract in `base`, the writing one in `writer`, projections' in `outbox`.

`sql` holds what stores on SQL databases share. `open_reader`, `open_writer` and `open_outbox` choose by the URL.
"""

from collections.abc import Callable

from infra.errors import UsageError
from infra.settings import InfluxDBSettings
from stream.store.base import SnapshotReader
from stream.store.dead_letters import DeadLetters
from stream.store.influx.address import address_of_url, is_influx_url
from stream.store.influx.patience import Patience
from stream.store.outbox import Outbox
from stream.store.postgres import PostgresDatabase, PostgresReadDatabase
from stream.store.postgres_server import SCHEMES
from stream.store.sql.database import ReadDatabase
from stream.store.sql.letter_reader import SqlDeadLetters
from stream.store.sql.reader import SqlOutbox, SqlSnapshots
from stream.store.sql.writer import SqlWriter
from stream.store.sqlite import SqliteDatabase, SqliteReadDatabase
from stream.store.sqlite_file import path_of_url

__all__ = ["open_dead_letters", "open_outbox", "open_reader", "open_writer"]


def open_reader(url: str, influxdb: InfluxDBSettings | None = None, patience: Patience | None = None) -> SnapshotReader:
    """Open the store at `url` for reading, beside whoever writes it.

    Args:
        url: `sqlite:///path`, `postgresql://…`, or a projection's: `influxdb://host:port/organisation/bucket`.
        influxdb: token and limits of an InfluxDB; without them the defaults, and the token of the environment.
        patience: how an InfluxDB that is away is asked again; as a command does if not given.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    if is_influx_url(url):
        # Its client takes half a second to import, which other stores need not wait for.
        from stream.store.influx.reader import InfluxSnapshots  # noqa: PLC0415

        return InfluxSnapshots(address_of_url(url, influxdb), patience)
    return SqlSnapshots(_read_database(url))


def open_writer(url: str, *, now_us: Callable[[], int] | None = None) -> SqlWriter:
    """Open the store at `url` (`sqlite:///path` or `postgresql://…`) for writing, made where there is none.

    Args:
        url: where it is.
        now_us: the time of day in microseconds since the epoch, UTC, instead of the system's; dead letters carry it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: the store cannot be written, or another process writes it.
    """
    _refuse_projection(url)
    database = PostgresDatabase(url) if url.startswith(SCHEMES) else SqliteDatabase(path_of_url(url))
    return SqlWriter(database, now_us)


def open_outbox(url: str) -> Outbox:
    """Open the outbox of the store at `url`, beside whoever writes it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    _refuse_projection(url)
    return SqlOutbox(_read_database(url))


def open_dead_letters(url: str) -> DeadLetters:
    """Open the dead letters of the store at `url`, beside whoever writes it.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    return SqlDeadLetters(_read_database(url))


def _read_database(url: str) -> ReadDatabase:
    return PostgresReadDatabase(url) if url.startswith(SCHEMES) else SqliteReadDatabase(path_of_url(url))


def _refuse_projection(url: str) -> None:
    if is_influx_url(url):
        raise UsageError(
            "an InfluxDB is read from; it is no store of record that events are ingested into",
            place="[store] url",
            fix="give a store of record as [store] url, and the InfluxDB as [influxdb] url to have it shown there",
        )
