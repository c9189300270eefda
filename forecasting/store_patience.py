"""The readers of a service's store: those of requests hurry, those of the background wait, and both leave alone what
is away."""

import threading
from dataclasses import dataclass, field
from typing import Self

from infra.breaker import Breaker, BreakerState
from infra.settings import Settings
from stream.store import open_reader
from stream.store.base import SnapshotReader
from stream.store.influx.patience import Patience


@dataclass(frozen=True, slots=True)
class StorePatience:
    """How one process reads its store; the breaker is that of an InfluxDB, other stores are asked at once.

    Attributes:
        settings: all of them.
        breaker: shared by all readers of the process.
        stop: set at the end of the process, so that nobody goes on waiting.
    """

    settings: Settings
    breaker: Breaker
    stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, settings: Settings, stop: threading.Event | None = None) -> Self:
        """Return that of the settings."""
        chosen = settings.influxdb
        breaker = Breaker(failures=chosen.failures, pause_s=chosen.pause_s)
        return cls(settings, breaker, stop or threading.Event())

    @property
    def is_away(self) -> bool:
        """Whether the store failed several times in a row."""
        return self.breaker.state is not BreakerState.CLOSED

    def for_background(self) -> SnapshotReader:
        """Open a reader for work that nobody waits for.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._open(Patience.of_background(self.settings.influxdb, self.stop, self.breaker))

    def for_requests(self) -> SnapshotReader:
        """Open a reader for requests.

        Raises:
            StoreError: the store cannot be read.
        """
        return self._open(Patience.of_request(self.settings.api.deadline_s, self.breaker))

    def _open(self, patience: Patience) -> SnapshotReader:
        return open_reader(self.settings.store.url, self.settings.influxdb, patience)
