"""The states that the service answers from: kept current by one thread, read by the event loop."""

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Self

from forecasting.api.problems import Problem, unavailable
from forecasting.api.scoring import Scoring
from forecasting.api.telemetry import Telemetry
from forecasting.live import LiveState, LiveStates
from forecasting.tracing import Tracing
from infra.errors import GraphtideError
from stream.store.base import GraphInfo, SnapshotReader

# Seconds that the start waits for the first look; a store that is away is waited for beside the answers that say so.
FIRST_LOOK_S = 5.0
_log = logging.getLogger(__name__)


class Following:
    """Follows a store: the graphs in it, and the state of those that are asked for.

    Everything but the work itself happens on the event loop, which alone touches the attributes.

    Args:
        open_reader: opens the store.
        models: folder of the checkpoints.
        max_graphs: states kept.
        poll_interval_s: seconds between two looks.
        telemetry: where times and failures are counted.
        scoring: told how the step came out that a state stood before.
        tracing: makes spans of the states that are encoded or advanced.
        is_away: tells whether the store failed several times in a row.
        on_new_state: told the graph whose state moved.
        on_look: told of the graphs after each look that succeeded, when the states have followed.

    Attributes:
        graphs: the graphs as they stood at the last look that succeeded.
        store_error: why the last look failed; None if it did not.
    """

    def __init__(
        self,
        open_reader: Callable[[], SnapshotReader],
        models: Path,
        *,
        max_graphs: int,
        poll_interval_s: float,
        telemetry: Telemetry,
        scoring: Scoring,
        is_away: Callable[[], bool],
        tracing: Tracing,
        on_new_state: Callable[[str], None],
        on_look: Callable[[Collection[str]], None],
    ) -> None:
        self.graphs: dict[str, GraphInfo] = {}
        self.store_error: str | None = "the store was not read yet"
        self._states = LiveStates(open_reader, models, max_graphs=max_graphs)
        self._live: dict[str, LiveState] = {}
        self._waiting: dict[str, asyncio.Future[LiveState]] = {}
        self._poll_interval_s = poll_interval_s
        self._telemetry = telemetry
        self._scoring = scoring
        self._is_away = is_away
        self._tracing = tracing
        self._on_new_state = on_new_state
        self._on_look = on_look
        # One thread: an encoding of many years holds up no forecast from a state that is there.
        self._pool = ThreadPoolExecutor(1, "graphtide-states")
        self._poller: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._poller = asyncio.create_task(self._poll())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), FIRST_LOOK_S)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._poller is not None:
            self._poller.cancel()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        self._states.close()

    def live(self, graph: str) -> LiveState | None:
        """Return the state of a graph that is kept."""
        return self._live.get(graph)

    def is_alive(self) -> bool:
        """Tell whether the store is still being followed."""
        return self._poller is not None and not self._poller.done()

    async def state_of(self, graph: str) -> LiveState:
        """Return the state of a graph, encoded first where it is not kept; several callers share one encoding.

        Raises:
            Problem: the graph has no closed step, or the store cannot be read.
        """
        live = self._live.get(graph)
        if live is not None:
            return live
        if self._is_away():
            # The thread that reads waits between its tries; a request need not.
            raise unavailable("store-unavailable", f"the snapshots of {graph!r} cannot be read now")
        return await self._renew(graph, partial(self._states.state_of, graph))

    async def degrade(self, failed: LiveState, reason: str) -> LiveState:
        """Return the state of a floor after the model behind `failed` made no forecast.

        Raises:
            Problem: the store cannot be read.
        """
        current = self._live.get(failed.graph)
        if current is not None and current.key != failed.key:
            return current
        return await self._renew(failed.graph, partial(self._states.degrade, failed.graph, reason))

    async def look(self) -> None:
        """Read the catalog, and advance the states that are behind it."""
        loop = asyncio.get_running_loop()
        try:
            found, behind = await loop.run_in_executor(self._pool, self._compare)
        except GraphtideError as error:
            if self.store_error != error.message:
                _log.warning("the store cannot be read: %s", error.message)
            self.store_error = error.message
            self._telemetry.store_up.set(0)
            return
        self.graphs, self.store_error = found, None
        self._telemetry.store_up.set(1)
        for graph in [graph for graph in self._live if graph not in found]:
            del self._live[graph]
            self._on_new_state(graph)
        for graph in behind:
            if graph not in self._waiting:
                try:
                    await self._renew(graph, partial(self._states.state_of, graph))
                except Problem as problem:
                    _log.warning("the state of %s could not be advanced: %s", graph, problem)
        self._on_look(found)

    def _compare(self) -> tuple[dict[str, GraphInfo], list[str]]:
        found = self._states.catalog()
        behind = [name for name in self._states.tracked() if name in found and not self._states.is_current(found[name])]
        return found, behind

    async def _renew(self, graph: str, work: Callable[[], LiveState]) -> LiveState:
        waiting = self._waiting.get(graph)
        if waiting is None:
            waiting = asyncio.ensure_future(self._run(graph, work))
            self._waiting[graph] = waiting
            waiting.add_done_callback(lambda done: self._renewed(graph, done))
        # A caller that gives up does not end the work of the others.
        return await asyncio.shield(waiting)

    def _renewed(self, graph: str, done: "asyncio.Future[LiveState]") -> None:
        del self._waiting[graph]
        if not done.cancelled():
            # Seen here, so that asyncio does not report it as never retrieved where all callers gave up.
            done.exception()

    async def _run(self, graph: str, work: Callable[[], LiveState]) -> LiveState:
        begin = perf_counter()
        try:
            with self._tracing.span("state", {"graphtide.graph": graph}):
                live = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except GraphtideError as error:
            _log.warning("no state of %s: %s", graph, error.message)
            info = self.graphs.get(graph)
            if info is not None and info.snapshots == 0:
                raise Problem(409, "no-snapshots", f"no step of {graph!r} is closed yet: ingest more events") from None
            raise unavailable("store-unavailable", f"the snapshots of {graph!r} cannot be read now") from None
        self._telemetry.encode_seconds.observe(perf_counter() - begin)
        before = self._live.get(graph)
        self._live[graph] = live
        for gone in set(self._live) - set(self._states.tracked()) - {graph}:
            del self._live[gone]
        if before is not None and before.key != live.key:
            self._on_new_state(graph)
            if live.next_step_us > before.next_step_us:
                # Behind what callers wait for; nobody waits for this.
                self._pool.submit(self._score, before)
        return live

    def _score(self, before: LiveState) -> None:
        try:
            observed = self._states.observed(before.graph, before.next_step_us)
            if observed is not None:
                self._scoring.score(before, observed)
        except GraphtideError as error:
            _log.info("the forecast of %s was not scored: %s", before.graph, error.message)
        except Exception:  # noqa: BLE001 - nobody waits for this, so nobody else would tell
            _log.exception("the forecast of %s was not scored", before.graph)

    async def _poll(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - one failed look must not be the last
                _log.exception("the look for new snapshots failed")
            self._looked.set()
            await asyncio.sleep(self._poll_interval_s)
