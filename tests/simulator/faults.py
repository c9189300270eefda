"""What one run is made of: how it ingests, what its log looks like, and which faults strike when. All from the seed."""

import random
from dataclasses import dataclass
from enum import StrEnum

from infra.steps import DAY_US, HOUR_US, MINUTE_US
from tests.simulator.clock import SECOND_US

N_PARTITIONS = 4
MIN_EVENTS = 2000
MIN_FAULTS = 5
# For how long, in simulated time, producers send and faults strike.
PRODUCTION_US = 120 * SECOND_US
# Of the runs where processes share the partitions.
_SPLIT_SHARE = 0.5


class Kind(StrEnum):
    """A fault."""

    CRASH = "crash"
    CRASH_IN_TRANSACTION = "crash-in-transaction"
    CRASH_AFTER_COMMIT = "crash-after-commit"
    COMMIT_UNKNOWN = "commit-unknown"
    DISK_FULL = "disk-full"
    FREEZE = "freeze"
    REBALANCE = "rebalance"
    CLOCK_JUMP = "clock-jump"
    BROKER_DOWN = "broker-down"
    SINK_DOWN = "sink-down"
    SINK_PARTIAL = "sink-partial"
    SINK_LOST_ACK = "sink-lost-ack"
    SINK_SLOW = "sink-slow"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_us: when it strikes, in simulated time since the begin.
        kind: what happens.
        lasts_us: for how long, where it lasts.
        number: what it strikes, taken modulo what there is; of a crash in a transaction the statement.
    """

    at_us: int
    kind: Kind
    lasts_us: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run.

    Attributes:
        seed: where all of it comes from.
        shared: several processes share the partitions; otherwise one process reads all of them, and a second process
            appears only as a take-over.
        split: several processes share each graph, whose events come from any partition; otherwise, where they share
            the partitions, each graph has one of its own.
        n_processes: how many processes there are.
        n_graphs: how many graphs.
        n_events: events, before duplicates and others that do not count.
        n_steps: steps that the events spread over.
        step_us, out_of_orderness_us, allowed_lateness_us, dedup_window_us, keep_edges_us, split_by_type: see
            `IngestOptions`.
        disorder_steps: by how many steps events come out of order.
        late_share: events that come much later than that.
        duplicate_share, malformed_share, future_share: records sent twice, that are no event, from the future.
        gap_share: records before which offsets are missing, as after a compaction.
        silences: (partition, from, to) in simulated time: its producers keep their records back meanwhile.
        idle_timeout_us: how long nothing comes until a partition is idle, in simulated time.
        session_timeout_us: how long a frozen process keeps its partitions, in simulated time.
        poll_records: records in one fetch, at most.
        turn_us: simulated time between two turns, on average.
        faults: in the order in which they strike.
    """

    seed: int
    shared: bool
    split: bool
    n_processes: int
    n_graphs: int
    n_events: int
    n_steps: int
    step_us: int
    out_of_orderness_us: int
    allowed_lateness_us: int
    dedup_window_us: int
    keep_edges_us: int | None
    split_by_type: bool
    disorder_steps: float
    late_share: float
    duplicate_share: float
    malformed_share: float
    future_share: float
    gap_share: float
    silences: tuple[tuple[int, int, int], ...]
    idle_timeout_us: int
    session_timeout_us: int
    poll_records: int
    turn_us: int
    faults: tuple[Fault, ...]

    @property
    def keyed(self) -> bool:
        """Whether the events of a graph are all in one partition."""
        return self.shared and not self.split

    @classmethod
    def of(cls, seed: int) -> "Plan":
        """Draw the plan of a seed."""
        draw = random.Random(f"plan {seed}")
        shared = draw.random() < 0.4
        step_us = draw.choice((5 * MINUTE_US, HOUR_US, DAY_US))
        lateness = draw.choice((0, 0, 0.5, 2, 5, 20))
        return cls(
            seed=seed,
            shared=shared,
            split=shared and random.Random(f"split {seed}").random() < _SPLIT_SHARE,
            n_processes=draw.choice((2, 3)) if shared else 1,
            n_graphs=draw.randint(4, 5) if shared else draw.randint(2, 4),
            n_events=draw.randint(MIN_EVENTS, MIN_EVENTS + 10),
            n_steps=draw.randint(12, 40),
            step_us=step_us,
            out_of_orderness_us=int(step_us * draw.choice((0, 0, 0.3, 1, 2.5))),
            allowed_lateness_us=int(step_us * lateness),
            dedup_window_us=int(step_us * draw.choice((0.1, 0.5, 1, 3))),
            keep_edges_us=draw.choice((None, None, int(step_us * 4))),
            split_by_type=draw.random() < 0.15,
            disorder_steps=draw.choice((0.0, 0.5, 1.5, 3.0)),
            late_share=draw.choice((0.0, 0.02, 0.06)),
            duplicate_share=draw.choice((0.01, 0.05, 0.1)),
            malformed_share=draw.choice((0.002, 0.01, 0.02)),
            future_share=draw.choice((0.0, 0.0, 0.003)),
            gap_share=draw.choice((0.0, 0.01)),
            silences=_silences(draw),
            idle_timeout_us=draw.choice((4, 8, 15)) * SECOND_US,
            session_timeout_us=draw.choice((6, 12)) * SECOND_US,
            poll_records=draw.choice((120, 240, 480)),
            turn_us=int(draw.choice((1.5, 2.5, 4)) * SECOND_US),
            faults=_faults(draw, shared=shared),
        )


def _silences(draw: random.Random) -> tuple[tuple[int, int, int], ...]:
    silences = []
    for partition in draw.sample(range(N_PARTITIONS), draw.randint(0, 2)):
        begin_us = draw.randint(6, 80) * SECOND_US
        silences.append((partition, begin_us, begin_us + draw.randint(10, 45) * SECOND_US))
    return tuple(silences)


def _faults(draw: random.Random, *, shared: bool) -> tuple[Fault, ...]:
    kinds = [kind for kind in Kind if shared or kind is not Kind.REBALANCE]
    return tuple(
        sorted(
            (
                Fault(
                    at_us=draw.randint(3 * SECOND_US, PRODUCTION_US - 10 * SECOND_US),
                    kind=draw.choice(kinds),
                    lasts_us=draw.randint(4, 30) * SECOND_US,
                    number=draw.randrange(60),
                )
                for _ in range(draw.randint(MIN_FAULTS, MIN_FAULTS + 4))
            ),
            key=lambda fault: fault.at_us,
        )
    )
