"""The log of a run: what producers send to each partition, when, and what each record is meant to be."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from infra.steps import DAY_US
from stream.decoders.records.base import Record
from stream.events import IntArray
from tests.simulator.faults import N_PARTITIONS, PRODUCTION_US, Plan

TOPIC = "events"
# 2024-01-01, the begin of a step of every size.
BEGIN_US = 1_704_067_200_000_000
MAX_AHEAD_US = DAY_US
_TYPES = ("", "reply", "like")
_MALFORMED = (
    b"{",
    b"",
    b"\xff\xfe",
    b'{"src": "a", "dst": "b"}',
    b'{"src": "", "dst": "b", "ts": 1704067200}',
    b'{"src": "a", "dst": "b", "ts": "yesterday"}',
    b'{"src": "a", "dst": "b", "ts": -5}',
    b'{"src": "a", "dst": "b", "ts": 1704067200, "graph": "No Graph"}',
    b'{"src": "a", "dst": "b", "ts": 1704067200, "weight": "heavy"}',
    b'{"src": {"a": 1}, "dst": "b", "ts": 1704067200}',
    b"17",
)


class Meaning(IntEnum):
    """What a record is."""

    EVENT = 0
    MALFORMED = 1
    FUTURE = 2
    TOMBSTONE = 3


class Deed(NamedTuple):
    """An event as its producer means it; a tuple, which costs less to make than a `stream.events.Event`."""

    graph: str
    src: str
    dst: str
    ts_us: int
    type: str
    id: str | None


class _Draft(NamedTuple):
    """A record before its log is in order; `order` tells those of the same time apart."""

    at_us: int
    order: int
    value: bytes | None
    meaning: Meaning
    event: Deed | None


@dataclass(frozen=True, slots=True)
class History:
    """What is sent to one partition.

    Attributes:
        records: [n] in the order of the log.
        meanings: [n] what each is.
        events: [n] the event that its producer means; None where it is none.
        at_us: [n] when each is in the log, in simulated time; never falls.
        offset: [n] their offsets, ascending.
        end: the offset after the last.
    """

    records: list[Record]
    meanings: Sequence[Meaning]
    events: Sequence[Deed | None]
    at_us: IntArray
    offset: IntArray
    end: int


def now_us_at_begin(plan: Plan) -> int:
    """Return the time of day at which a run begins: after all its events, but for those from the future."""
    return BEGIN_US + (plan.n_steps + 60) * plan.step_us + 30 * DAY_US


def end_us(plan: Plan) -> int:
    """Return the time of the events that end each partition's log, so that all steps before can close."""
    return BEGIN_US + (plan.n_steps + 5) * plan.step_us


def make_histories(plan: Plan) -> list[History]:
    """Return what is sent to each partition."""
    draw = np.random.default_rng([plan.seed, 1])
    events, partition, arrival_us = _events(plan, draw)
    order = np.argsort(arrival_us, kind="stable")
    # Producers send in the order of arrival, spread over the time of production.
    at_us = np.empty(len(events), dtype=np.int64)
    at_us[order] = (np.arange(len(events)) * (0.95 * PRODUCTION_US) / len(events)).astype(np.int64)
    own: list[list[_Draft]] = [[] for _ in range(N_PARTITIONS)]
    letters = random.Random(f"records {plan.seed}")
    meant = Meaning.EVENT
    for index, when_us in zip(order.tolist(), at_us[order].tolist(), strict=True):
        event, rows = events[index], own[partition[index]]
        rows.append(_Draft(when_us, len(rows), _value(event), meant, event))
    for number in range(N_PARTITIONS):
        own[number] += _copies(plan, letters, own[number])
        own[number] += _others(plan, letters, len(own[number]))
    if not plan.keyed:
        _stray_copies(letters, own)
    return [_history(plan, number, rows) for number, rows in enumerate(own)]


def _events(plan: Plan, draw: np.random.Generator) -> tuple[list[Deed], list[int], IntArray]:
    """Return the events, their partitions, and the event time [n] that it is when each is sent."""
    n, span_us = plan.n_events, plan.n_steps * plan.step_us
    # Half of the time is busier than the other, and a stretch of it is silent.
    ts = np.where(draw.random(n) < 0.5, draw.random(n) ** 2, draw.random(n))
    gap = draw.random() * 0.7
    ts = np.where((ts > gap) & (ts < gap + 0.12), ts * 0.3, ts)
    ts_us = BEGIN_US + (ts * span_us).astype(np.int64)
    delay = draw.random(n) * plan.disorder_steps
    delay += np.where(draw.random(n) < plan.late_share, draw.random(n) * 14, 0.0)
    arrival_us = ts_us + (delay * plan.step_us).astype(np.int64)

    graph = np.minimum(draw.integers(0, plan.n_graphs + 1, n), plan.n_graphs - 1)
    partition = graph % N_PARTITIONS if plan.keyed else draw.integers(0, N_PARTITIONS, n)
    n_nodes = int(draw.integers(8, 120))
    src, dst = (n_nodes * draw.random((2, n)) ** 2).astype(np.int64).tolist()
    types = draw.integers(0, len(_TYPES), n).tolist()
    has_id = (draw.random(n) < 0.8).tolist()
    # The ids of a few events were used long before, by a producer that counts anew.
    old = np.flatnonzero(draw.random(n) < 0.01)
    id_of = np.arange(n)
    earlier = draw.integers(0, n, len(old))
    far = np.abs(ts_us[old] - ts_us[earlier]) > 2 * plan.dedup_window_us
    same = graph[old] == graph[earlier]
    id_of[old[far & same]] = earlier[far & same]
    _part_ids(id_of, ts_us, plan.dedup_window_us)

    graphs = [f"g{number}" for number in range(plan.n_graphs)]
    nodes = [f"n{number}" for number in range(n_nodes)]
    events = [
        Deed(graphs[g], nodes[s], nodes[d], t, _TYPES[k], f"e{i}" if known else None)
        for s, d, t, g, k, i, known in zip(
            src, dst, ts_us.tolist(), graph.tolist(), types, id_of.tolist(), has_id, strict=True
        )
    ]
    return events, partition.tolist(), arrival_us


def _part_ids(id_of: IntArray, ts_us: IntArray, window_us: int) -> None:
    """Give events an id of their own where another of the same id is so near that only one of them would count."""
    for value in np.unique(id_of[id_of != np.arange(len(id_of))]).tolist():
        same = np.flatnonzero(id_of == value)
        same = same[np.argsort(ts_us[same], kind="stable")]
        near = np.flatnonzero(np.diff(ts_us[same]) <= window_us)
        for index in same[near + 1].tolist() + same[near].tolist():
            id_of[index] = len(id_of) + index


def _value(event: Deed) -> bytes:
    graph, src, dst, ts_us, type_, id_ = event
    tail = f', "type": "{type_}"' if type_ else ""
    if id_ is not None:
        tail += f', "id": "{id_}"'
    return f'{{"graph": "{graph}", "src": "{src}", "dst": "{dst}", "ts": {ts_us}{tail}}}'.encode()


def _copies(plan: Plan, draw: random.Random, rows: Sequence[_Draft]) -> list[_Draft]:
    """Return what a producer sends again because it never heard of the first time."""
    copies = []
    for row in rows:
        if row.event is not None and row.event.id is not None and draw.random() < plan.duplicate_share:
            wait_us = draw.choice((0, 300_000, 5_000_000, 20_000_000))
            copies.append(row._replace(at_us=min(row.at_us + wait_us, PRODUCTION_US)))
    return copies


def _stray_copies(draw: random.Random, own: list[list[_Draft]]) -> None:
    """Send some events again, to another partition."""
    for number, rows in enumerate(list(map(list, own))):
        for row in rows:
            if row.event is not None and row.event.id is not None and draw.random() < 0.004:
                other = (number + draw.randint(1, N_PARTITIONS - 1)) % N_PARTITIONS
                own[other].append(row._replace(at_us=min(row.at_us + draw.choice((0, 4_000_000)), PRODUCTION_US)))


def _others(plan: Plan, draw: random.Random, n_rows: int) -> list[_Draft]:
    """Return records that are no event, or from the future."""
    others = []
    for row in range(n_rows):
        chance = draw.random()
        value: bytes | None
        event = None
        if chance < plan.malformed_share:
            value, meaning = draw.choice(_MALFORMED), Meaning.MALFORMED
        elif chance < plan.malformed_share + plan.future_share:
            ahead_us = now_us_at_begin(plan) + draw.randint(300, 900) * DAY_US
            event = Deed("g0", "n0", "n1", ahead_us, "", f"f{row}")
            value, meaning = _value(event), Meaning.FUTURE
        elif chance > 0.998:
            value, meaning = None, Meaning.TOMBSTONE
        else:
            continue
        others.append(_Draft(draw.randint(0, PRODUCTION_US), row, value, meaning, event))
    return others


def _history(plan: Plan, number: int, rows: list[_Draft]) -> History:
    rows.sort(key=itemgetter(0, 1))
    at_us = np.array([row.at_us for row in rows], dtype=np.int64)
    for partition, begin_us, silent_until_us in plan.silences:
        if partition == number:
            at_us[(at_us >= begin_us) & (at_us < silent_until_us)] = silent_until_us
    at_us = np.append(np.maximum.accumulate(at_us), max(PRODUCTION_US, int(at_us.max(initial=0))))
    last = Deed(f"g{number}" if plan.keyed else "g0", "n0", "n1", end_us(plan), "", None)
    rows.append(_Draft(int(at_us[-1]), len(rows), _value(last), Meaning.EVENT, last))
    draw = np.random.default_rng([plan.seed, 2, number])
    jumps = np.where(draw.random(len(at_us)) < plan.gap_share, draw.integers(2, 20, len(at_us)), 1)
    offset = np.cumsum(jumps) - 1
    _, _, values, meanings, events = zip(*rows, strict=True)
    records = [
        Record(value, None, (), TOPIC, number, at, when)
        for value, at, when in zip(values, offset.tolist(), (at_us + BEGIN_US).tolist(), strict=True)
    ]
    return History(records, meanings, events, at_us, offset, int(offset[-1]) + 1)
