"""A store and its projector: made from the settings, and run in the foreground by `graphtide store project`."""

from collections.abc import Callable

from infra.errors import StoreError
from infra.settings import InfluxDBSettings
from stream.store import open_outbox, open_reader
from stream.store.influx.address import address_of_settings
from stream.store.outbox import Projections
from stream.store.projector import PROJECTION, Projector, ProjectorStatus
from stream.store.writer import StoreWriter

_TELL_S = 0.5


def make_projector(store_url: str, settings: InfluxDBSettings, *, take_over: bool = False) -> Projector | None:
    """Return a projector of a store of record, not started yet; None where no InfluxDB is set.

    With `take_over` it also writes graphs that the bucket has of another store.

    Raises:
        UsageError: the settings name no InfluxDB properly, or the token file cannot be read.
    """
    address = address_of_settings(settings)
    if address is None:
        return None
    return Projector(lambda: open_outbox(store_url), lambda: open_reader(store_url), address, take_over=take_over)


def enable(writer: Projections, projector: Projector) -> None:
    """Let the store note in the writer's transaction, which is open, what a projector has to write."""
    writer.enable_projection(PROJECTION, projector.place)


class Projection:
    """Notes with each commit of ingestion what a running projector has written; a `stream.ingest.Companion`."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._numbers: list[int] = []

    def has_news(self) -> bool:
        """Return whether there is anything to note."""
        return bool(self._projector.acknowledged())

    def commit(self, writer: StoreWriter) -> None:
        """Note what was written."""
        self._numbers = mark_projected(writer, self._projector)

    def committed(self) -> None:
        """Let the projector look for what was committed."""
        self._projector.noted(self._numbers)
        self._numbers = []


def mark_projected(writer: Projections, projector: Projector) -> list[int]:
    """Note in the writer's transaction, which is open, what the projector has written; return it for `noted`."""
    if numbers := projector.acknowledged():
        writer.projected(PROJECTION, numbers)
    return numbers


def project_all(
    writer: StoreWriter, projector: Projector, on_status: Callable[[ProjectorStatus], None] | None = None
) -> ProjectorStatus:
    """Wait until a running projector has written all that the store has, through outages of any length.

    Args:
        writer: the store, with the projection enabled; notes what is written.
        projector: the projector of the same store.
        on_status: called about twice a second.

    Raises:
        StoreError: InfluxDB refuses the points, or another process projects this store.
    """
    while True:
        status = projector.drain(_TELL_S)
        if projector.acknowledged():
            with writer.transaction():
                numbers = mark_projected(writer, projector)
            projector.noted(numbers)
        if on_status is not None:
            on_status(status)
        if status.refused:
            raise StoreError(status.error or "the projection was refused", fix=status.fix)
        if status.drained and not status.leads:
            raise StoreError(
                "another process projects this store already", fix="let it, or stop it and run the command again"
            )
        if status.drained:
            return status
