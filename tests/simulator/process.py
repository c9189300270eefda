"""One simulated ingest process: real ingestion over a simulated cluster and disk, and the real projector beside it."""

import random
from collections.abc import Callable

from infra.errors import GraphtideError
from stream.ingest import Ingest, IngestOptions
from stream.store.project import Projection
from stream.store.projector import PROJECTION
from stream.store.sql.reader import SqlOutbox, SqlSnapshots
from tests.simulator.broker import Broker, SimulatedClient
from tests.simulator.clock import Clock, Trace
from tests.simulator.disk import Disk, SimulatedDatabase, Trouble
from tests.simulator.faults import Plan
from tests.simulator.fiber import Fiber
from tests.simulator.history import MAX_AHEAD_US
from tests.simulator.invariants import Invariants
from tests.simulator.sink import SimulatedAddress, SimulatedProjector, Sink
from tests.simulator.source import GroupSource

# Idle partitions are waited for without end, so that what counts is told by the logs alone.
_IDLE_HOLD_US = 10**15
_MAX_WAIT_S = 1.0


def options_of(plan: Plan, now_us: Callable[[], int]) -> IngestOptions:
    """Return how a run ingests."""
    return IngestOptions(
        step_us=plan.step_us,
        out_of_orderness_us=plan.out_of_orderness_us,
        allowed_lateness_us=plan.allowed_lateness_us,
        max_ahead_us=MAX_AHEAD_US,
        idle_hold_us=_IDLE_HOLD_US,
        dedup_window_us=plan.dedup_window_us,
        keep_edges_us=plan.keep_edges_us,
        split_by_type=plan.split_by_type,
        split_graphs=frozenset(f"g{number}" for number in range(plan.n_graphs)) if plan.split else frozenset(),
        now_us=now_us,
    )


class Process:
    """One life of an ingest process, from its start to its death.

    Attributes:
        name: its name in the trace.
        trouble: what is about to go wrong.
        frozen_until_us: until then it does not run; 0: it is not frozen.
        is_over: it has ended, of itself or by force.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        *,
        broker: Broker,
        disk: Disk,
        sink: Sink,
        clock: Clock,
        trace: Trace,
        invariants: Invariants,
        draw: random.Random,
    ) -> None:
        self.name = name
        self.trouble = Trouble()
        self.frozen_until_us = 0
        self.is_over = False
        self._plan = plan
        self._disk = disk
        self._sink = sink
        self._clock = clock
        self._trace = trace
        self._invariants = invariants
        self._ingest = Fiber(self._live)
        self._projector: Fiber | None = None
        self._database: SimulatedDatabase | None = None
        self.client = SimulatedClient(
            broker,
            name,
            pause=self._ingest.pause,
            max_records=plan.poll_records,
            rejoins=plan.shared,
            draw=draw,
        )

    def run_ingest(self) -> None:
        """Let ingestion go on a little; note it where it ends with an error."""
        try:
            self._ingest.resume()
        except GraphtideError as error:
            # Where the store lies differs from run to run.
            message = error.message.replace(str(self._disk.path), self._disk.path.name)
            self._trace.note(self.name, f"ends: {message}")
        if self._ingest.ended:
            self._end()

    def run_projector(self) -> None:
        """Let the projector go on a little."""
        if self._projector is not None and not self.is_over:
            self._projector.resume()

    @property
    def has_store(self) -> bool:
        """Whether it has committed anything yet."""
        return self._database is not None

    def kill(self) -> None:
        """End it at once, wherever it stands."""
        self.trouble.dead = True
        self._ingest.kill()
        self._end()

    def stop_projector(self) -> None:
        """End the projector alone."""
        if self._projector is not None:
            self._projector.kill()
            self._projector = None

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            if self.trouble.dead:
                self._trace.note(self.name, "is dead")
            self.stop_projector()

    def _live(self) -> None:
        writer = self._disk.open_writer(self.trouble, self._on_commit)
        try:
            with writer.transaction():
                writer.enable_projection(PROJECTION)
            projector = self._start_projector()
            source = GroupSource(self.client, self._clock, self._plan.idle_timeout_us)
            options = options_of(self._plan, self._clock.now_us)
            Ingest(source, writer, options, companions=[Projection(projector)]).run()
        finally:
            writer.close()
            if not self.trouble.dead:
                self.client.close()

    def _start_projector(self) -> SimulatedProjector:
        # The projector's address needs the fiber that runs the projector.
        fiber = Fiber(lambda: projector.live())  # noqa: PLW0108
        address = SimulatedAddress(
            url="http://simulated",
            org="o",
            bucket="b",
            max_wait_s=_MAX_WAIT_S,
            sink=self._sink,
            who=self.name,
            pause=fiber.pause,
        )
        projector = SimulatedProjector(
            lambda: SqlOutbox(self._disk.open_reader(self._writer_number)),
            lambda: SqlSnapshots(self._disk.open_reader(self._writer_number)),
            address,
        )
        self._projector = fiber
        return projector

    def _writer_number(self) -> int:
        return 0 if self._database is None else self._database.writer

    def _on_commit(self, database: SimulatedDatabase) -> None:
        self._database = database
        what = self._invariants.check(database)
        self._trace.note(self.name, f"commits {what}")
