"""The store as a worker reads it: by itself, up to the step that its driver saw, and only if it sees the same."""

from dataclasses import dataclass
from typing import Self

from forecasting.history import read_history
from forecasting.training import describe
from infra.errors import StoreError
from infra.settings import InfluxDBSettings, Settings
from models.contract import History
from stream.store import open_reader
from stream.store.base import SnapshotReader
from stream.store.sqlite_file import URL_PREFIX, path_of_url


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker reads snapshots.

    Attributes:
        url: of the store; a path in it is absolute.
        influxdb: token and limits of an InfluxDB.
    """

    url: str
    influxdb: InfluxDBSettings

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the store of the settings; workers stand in another folder than this process."""
        url = settings.store.url
        if url.startswith(URL_PREFIX):
            url = f"{URL_PREFIX}{path_of_url(url).absolute()}"
        return cls(url, settings.influxdb)

    def open(self) -> SnapshotReader:
        """Open the store.

        Raises:
            StoreError: it cannot be reached from this host.
        """
        try:
            return open_reader(self.url, self.influxdb)
        except StoreError as error:
            raise StoreError(
                f"a worker cannot read the store: {error.message}",
                place=error.place,
                fix="workers on several hosts need a store that all of them reach: PostgreSQL or InfluxDB",
            ) from error


@dataclass(frozen=True, slots=True)
class Seen:
    """A graph as the driver saw it: its first steps.

    Attributes:
        graph: its name.
        steps: how many.
        digest: of their values.
    """

    graph: str
    steps: int
    digest: str

    @classmethod
    def of(cls, graph: str, history: History) -> Self:
        """Return what says that another process reads the same history."""
        return cls(graph, len(history), str(describe(history, graph)["digest"]))

    def read(self, source: Source) -> History:
        """Return these steps.

        Raises:
            StoreError: the store cannot be read, or they are not the same any more.
        """
        with source.open() as reader:
            history = read_history(reader, self.graph).part(0, self.steps)
        if Seen.of(self.graph, history) != self:
            raise StoreError(
                f"the snapshots of {self.graph!r} are not those that this command began with",
                fix="run it again when ingestion has caught up; all workers have to read the same store",
            )
        return history
