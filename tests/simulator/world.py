"""The simulated world: who runs when, which fault strikes when, and when it is all over."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.simulator.broker import Broker
from tests.simulator.clock import SECOND_US, Clock, Trace
from tests.simulator.disk import Disk
from tests.simulator.faults import PRODUCTION_US, Fault, Kind, Plan
from tests.simulator.history import History, now_us_at_begin
from tests.simulator.invariants import Invariants
from tests.simulator.process import Process
from tests.simulator.sink import Sink

# A run that needs more turns than this, once no more fault strikes, does not come to its end.
MAX_DRAIN_TURNS = 1500
_LAST_LOOKS = 4
_DRAIN_TURN_US = 2 * SECOND_US
_RESTART_AFTER_US = 3 * SECOND_US


class StuckError(AssertionError):
    """The faults are over, and ingestion still does not come to the end of the logs."""


@dataclass(slots=True)
class Slot:
    """A place that should have a running process; the last process that ran there."""

    number: int
    process: Process | None = None
    lives: int = 0
    start_at_us: int = 0


class World:
    """One run, from the plan to the point where everything is ingested and projected.

    Args:
        plan: the run.
        histories: what comes into each partition.
        store: an empty store.
    """

    def __init__(self, plan: Plan, histories: list[History], store: Path) -> None:
        self.plan = plan
        self.clock = Clock(now_us_at_begin(plan))
        self.trace = Trace(self.clock)
        self._draw = random.Random(f"world {plan.seed}")
        self.broker = Broker(histories, self.clock, self.trace, self._draw)
        self.disk = Disk(store, plan.shared, self.clock.now_us)
        self.sink = Sink(self.clock, self.trace)
        self.invariants = Invariants()
        self.struck: list[Fault] = []
        self._slots = [Slot(number) for number in range(plan.n_processes)]
        # Frozen processes whose slot has been given to another.
        self._given_up: list[Process] = []
        self._disk_full_until_us = 0

    def run(self) -> None:
        """Run to the end.

        Raises:
            AssertionError: an invariant does not hold, or there is no end.
        """
        waiting = list(self.plan.faults)
        try:
            while waiting or self.clock.elapsed_us < PRODUCTION_US:
                self.clock.advance(int(self._draw.expovariate(1 / self.plan.turn_us)))
                waiting = [fault for fault in waiting if not self._is_due(fault) or not self._strike(fault)]
                self._turn()
            self._mend()
            for _ in range(MAX_DRAIN_TURNS):
                if self._is_done():
                    # A process that took a partition over just now has steps to close that wait for nobody any more.
                    self._let_all_look()
                if self._is_done():
                    self._let_projectors_catch_up()
                    return
                self.clock.advance(_DRAIN_TURN_US)
                self._turn()
        finally:
            for process in self._processes():
                process.kill()
            self.disk.close()
        raise StuckError(f"offsets {self.invariants.offsets}, {self.invariants.waiting} changes wait for the sink")

    def _processes(self) -> list[Process]:
        own = [slot.process for slot in self._slots if slot.process is not None]
        return [process for process in [*own, *self._given_up] if not process.is_over]

    def _is_due(self, fault: Fault) -> bool:
        return fault.at_us <= self.clock.elapsed_us

    def _is_done(self) -> bool:
        ends = {number: history.end for number, history in enumerate(self.broker.histories)}
        return self.invariants.offsets == ends and self.invariants.waiting == 0

    def _let_all_look(self) -> None:
        """Let each process poll until what it has claimed is settled."""
        for _ in range(_LAST_LOOKS):
            for process in self._processes():
                process.run_ingest()

    def _let_projectors_catch_up(self) -> None:
        """Let projectors look once more: what they tell of graphs, beside snapshots, no change lists."""
        for process in self._processes():
            for _ in range(_LAST_LOOKS):
                process.run_projector()

    def _mend(self) -> None:
        """Let no fault last."""
        self.trace.note("world", "no more faults")
        self.broker.down_until_us = self.sink.down_until_us = self.sink.slow_until_us = 0
        self.sink.partial = self.sink.lost_acks = 0
        self.broker.cuts_fetches = False
        self._disk_full_until_us = 0
        for process in self._processes():
            process.frozen_until_us = min(process.frozen_until_us, self.clock.elapsed_us)
            process.trouble.die_at = None
            process.trouble.die_after_commit = process.trouble.lose_commit = False

    def _turn(self) -> None:
        """Let one process go on."""
        self.disk.is_full = self.clock.elapsed_us < self._disk_full_until_us
        self._supervise()
        awake = [process for process in self._processes() if process.frozen_until_us <= self.clock.elapsed_us]
        if not awake:
            return
        process = self._draw.choice(awake)
        if self._draw.random() < 0.75:
            process.run_ingest()
        else:
            process.run_projector()

    def _supervise(self) -> None:
        """Start what has ended, and give up what is frozen."""
        now_us = self.clock.elapsed_us
        self._given_up = [process for process in self._given_up if not process.is_over]
        for slot in self._slots:
            process = slot.process
            if process is not None and process.is_over:
                slot.process = None
                slot.start_at_us = now_us + self._draw.randrange(_RESTART_AFTER_US)
                self._leave(process)
            elif process is not None and process.frozen_until_us > now_us + self.plan.session_timeout_us:
                # It will not wake before the group has lost its patience.
                self.trace.note("group", f"gives {process.name} up")
                self._leave(process)
                if not self.plan.shared:
                    # Whoever takes an exclusive store over cannot tell a request that is on its way to the sink.
                    process.stop_projector()
                    if process.has_store:
                        self._given_up.append(process)
                    else:
                        process.kill()  # when it comes to open the store, the lock keeps it out
                    slot.process = None
            if slot.process is None and slot.start_at_us <= now_us:
                slot.lives += 1
                slot.process = self._start(f"p{slot.number}.{slot.lives}")

    def _leave(self, process: Process) -> None:
        if process.client.member is not None:
            self.broker.group.leave(process.client.member)

    def _start(self, name: str) -> Process:
        self.trace.note(name, "starts")
        return Process(
            name,
            self.plan,
            broker=self.broker,
            disk=self.disk,
            sink=self.sink,
            clock=self.clock,
            trace=self.trace,
            invariants=self.invariants,
            draw=self._draw,
        )

    def _strike(self, fault: Fault) -> bool:
        """Let a fault strike; return False where there is nothing that it could strike now."""
        processes = [p for p in self._processes() if p not in self._given_up]
        if not processes:
            return False
        target = processes[fault.number % len(processes)]
        until_us = self.clock.elapsed_us + fault.lasts_us
        self.trace.note("fault", f"{fault.kind} ({target.name}, {fault.lasts_us / SECOND_US:.0f} s, {fault.number})")
        self.struck.append(fault)
        actions: dict[Kind, Callable[[], None]] = {
            Kind.CRASH: target.kill,
            Kind.CRASH_IN_TRANSACTION: lambda: setattr(target.trouble, "die_at", fault.number),
            Kind.CRASH_AFTER_COMMIT: lambda: setattr(target.trouble, "die_after_commit", True),
            Kind.COMMIT_UNKNOWN: lambda: setattr(target.trouble, "lose_commit", True),
            Kind.DISK_FULL: lambda: setattr(self, "_disk_full_until_us", until_us),
            Kind.FREEZE: lambda: setattr(target, "frozen_until_us", until_us),
            Kind.REBALANCE: lambda: self.broker.group.share_out(fault.number),
            Kind.CLOCK_JUMP: lambda: self.clock.advance(fault.lasts_us),
            Kind.BROKER_DOWN: lambda: setattr(self.broker, "down_until_us", until_us),
            Kind.SINK_DOWN: lambda: setattr(self.sink, "down_until_us", until_us),
            Kind.SINK_PARTIAL: lambda: setattr(self.sink, "partial", 1 + fault.number % 3),
            Kind.SINK_LOST_ACK: lambda: setattr(self.sink, "lost_acks", 1 + fault.number % 3),
            Kind.SINK_SLOW: lambda: setattr(self.sink, "slow_until_us", until_us),
        }
        actions[fault.kind]()
        return True
