"""Snapshot stores: the reading contract in `base`, the writing side's records in `records`, one file or few a store.

`open_reader` and `open_writer` choose the store by its URL.
"""

from infra.errors import UsageError
from infra.settings import InfluxDBSettings
from stream.store.base import SnapshotReader
from stream.store.influx.address import address_of_url, is_influx_url
from stream.store.sqlite import SqliteSnapshots
from stream.store.sqlite_writer import SqliteWriter

__all__ = ["open_reader", "open_writer"]


def open_reader(url: str, influxdb: InfluxDBSettings | None = None) -> SnapshotReader:
    """Open the store at `url` for reading, beside whoever writes it.

    Args:
        url: `sqlite:///path`, or the address of a projection, `influxdb://host:port/organisation/bucket`.
        influxdb: token and limits of an InfluxDB; without them the defaults, and the token of the environment.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: there is no store, or it cannot be read.
    """
    if is_influx_url(url):
        # Its client takes half a second to import, which other stores need not wait for.
        from stream.store.influx.reader import InfluxSnapshots  # noqa: PLC0415

        return InfluxSnapshots(address_of_url(url, influxdb))
    return SqliteSnapshots(url)


def open_writer(url: str) -> SqliteWriter:
    """Open the store at `url` (`sqlite:///path`) for writing, made where there is none.

    Raises:
        UsageError: the URL names no kind of store that is known.
        StoreError: the store cannot be written, or another process writes it.
    """
    if is_influx_url(url):
        raise UsageError(
            "an InfluxDB is read from, it is no store of record that events are ingested into",
            place="[store] url",
            fix="give a store of record as [store] url, and the InfluxDB as [influxdb] url to have it shown there",
        )
    return SqliteWriter(url)
