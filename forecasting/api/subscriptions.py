"""What all streams of a process share: how many there may be, the news of each graph, and the process's end."""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from forecasting.api.bodies import encode, snapshot_rows
from forecasting.api.cursors import WINDOW_STEPS
from forecasting.api.problems import Problem, unavailable
from forecasting.api.store_access import StoreAccess
from forecasting.api.telemetry import Telemetry
from infra.schema import METRIC_INDEX
from stream.store.base import GraphInfo, SnapshotReader, SnapshotTable

# Steps of a view: whoever was told the last ones finds all of them in it, though a window full of new ones came since.
VIEW_STEPS = 2 * WINDOW_STEPS
# Looks at a store that is written at the same time; after that, the next news will do.
_LOOKS = 3
_RETRY_AFTER_S = 5
_EVENTS = METRIC_INDEX["events"]


@dataclass(slots=True)
class View:
    """The last steps of a graph at one moment.

    Attributes:
        info: the graph.
        table: its closed steps from some step on, with all metrics.
        encoded: rows as JSON, by row and metrics: encoded once for all subscribers.
    """

    info: GraphInfo
    table: SnapshotTable
    encoded: dict[tuple[int, tuple[str, ...]], bytes] = field(default_factory=dict)

    @property
    def start_us(self) -> int:
        """Start of the first step in the table."""
        return int(self.table.step_start_us[0])

    def row_of(self, step_start_us: int) -> int:
        """Return the row of a step, which may lie outside the table."""
        return (step_start_us - self.start_us) // self.info.step_us

    def older_events(self, row: int) -> int:
        """Return the events of all steps of the graph before a row."""
        return self.info.events - int(self.table.values[row:, _EVENTS].sum())

    def snapshot(self, row: int, metrics: tuple[str, ...]) -> bytes:
        """Return a snapshot as JSON."""
        key = row, metrics
        if key not in self.encoded:
            columns = [METRIC_INDEX[name] for name in metrics]
            part = SnapshotTable(
                self.table.graph,
                self.table.step_us,
                metrics,
                self.table.step_start_us[row : row + 1],
                self.table.revision[row : row + 1],
                self.table.values[row : row + 1, columns],
            )
            self.encoded[key] = encode({"graph": self.table.graph, **snapshot_rows(part)[0]})
        return self.encoded[key]


def read_view(reader: SnapshotReader, graph: str, start_us: int | None = None) -> View | None:
    """Return a view from `start_us` on, or of the last steps; None while ingestion commits between all our looks.

    Raises:
        StoreError: the store cannot be read, or there is no such graph.
    """
    for _ in range(_LOOKS):
        info = reader.graph(graph)
        last_us = -1 if info.last_step_us is None else info.last_step_us
        begin_us = last_us - (VIEW_STEPS - 1) * info.step_us if start_us is None else start_us
        table = reader.snapshots(graph, start_us=begin_us)
        if reader.graph(graph) == info:
            return View(info, table)
    return None


class Subscriptions:
    """The streams that are open in one process, and what they share; for the event loop.

    Args:
        store: where news are read.
        max_all, max_per_key: how many there may be at once.
        telemetry: where they are counted.

    Attributes:
        draining: True once the process is to end: streams end then.
    """

    def __init__(self, store: StoreAccess, *, max_all: int, max_per_key: int, telemetry: Telemetry) -> None:
        self.draining = False
        self._store = store
        self._max_all = max_all
        self._max_per_key = max_per_key
        self._telemetry = telemetry
        self._of_key: Counter[str] = Counter()
        self._woken = asyncio.Event()
        self._views: dict[str, View] = {}
        self._reading: dict[str, asyncio.Future[View | None]] = {}

    def enter(self, key_id: str) -> None:
        """Count one more subscriber; `leave` follows.

        Raises:
            Problem: 429 or 503, there are too many.
        """
        if self._of_key[key_id] >= self._max_per_key:
            self._telemetry.shed.labels("subscribers of a key").inc()
            headers = {"Retry-After": str(_RETRY_AFTER_S)}
            detail = f"{self._max_per_key} streams of this key are open already"
            raise Problem(429, "too-many-subscribers", detail, headers=headers)
        if self.draining or self._of_key.total() >= self._max_all:
            self._telemetry.shed.labels("subscribers").inc()
            raise unavailable("overloaded", "no more streams can be opened now", retry_after_s=_RETRY_AFTER_S)
        self._of_key[key_id] += 1
        self._telemetry.subscribers.set(self._of_key.total())

    def leave(self, key_id: str) -> None:
        """Count one subscriber less."""
        self._of_key[key_id] -= 1
        if not self._of_key[key_id]:
            del self._of_key[key_id]
        self._telemetry.subscribers.set(self._of_key.total())

    @property
    def count(self) -> int:
        """How many there are."""
        return self._of_key.total()

    def looked(self, graphs: Collection[str]) -> None:
        """Be told of the graphs that a look at the store found: all who wait see whether there is news for them."""
        for gone in set(self._views).difference(graphs):
            del self._views[gone]
        self._wake()

    def drain(self) -> None:
        """Let all streams end, and open none any more."""
        self.draining = True
        self._wake()

    async def wait(self, timeout_s: float) -> None:
        """Wait for news, at most for so long."""
        try:
            await asyncio.wait_for(self._woken.wait(), timeout_s)
        except TimeoutError:
            return

    async def view(self, info: GraphInfo) -> View | None:
        """Return the last steps of a graph, read once for all who ask; None if that has to wait for the next look.

        Raises:
            Problem: the store cannot be read.
        """
        known = self._views.get(info.name)
        if known is not None and known.info == info:
            return known
        reading = self._reading.get(info.name)
        if reading is None:
            reading = asyncio.ensure_future(self._store.ask(lambda reader: read_view(reader, info.name)))
            self._reading[info.name] = reading
            reading.add_done_callback(lambda done: self._was_read(info.name, done))
        return await asyncio.shield(reading)

    async def view_from(self, graph: str, start_us: int) -> View | None:
        """Return the steps of a graph from `start_us` on, for one who is far behind.

        Raises:
            Problem: the store cannot be read.
        """
        return await self._store.ask(lambda reader: read_view(reader, graph, start_us))

    def _wake(self) -> None:
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()

    def _was_read(self, graph: str, done: "asyncio.Future[View | None]") -> None:
        del self._reading[graph]
        if not done.cancelled() and done.exception() is None and (view := done.result()) is not None:
            self._views[graph] = view
