"""The log of a run: what producers send to each partition, when, and what each record is meant to be."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from infra.steps import DAY_US
from stream.decoders.records.base import Record
from stream.events import Event, IntArray
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


class Sent(NamedTuple):
    """A record, and what its producer meant by it; `event` is None where it is none."""

    record: Record
    meaning: Meaning
    event: Event | None


@dataclass(frozen=True, slots=True)
class History:
    """What is sent to one partition.

    Attributes:
        sent: in the order of the log.
        at_us: [n] when each is in the log, in simulated time; never falls.
        offset: [n] their offsets, ascending.
        end: the offset after the last.
    """

    sent: Sequence[Sent]
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
    own: list[list[tuple[int, int, Sent]]] = [[] for _ in range(N_PARTITIONS)]
    letters = random.Random(f"records {plan.seed}")
    for index in order.tolist():
        own[partition[index]].append((int(at_us[index]), len(own[partition[index]]), _sent(events[index])))
    for number in range(N_PARTITIONS):
        own[number] += _copies(plan, letters, own[number])
        own[number] += _others(plan, letters, len(own[number]))
    if not plan.keyed:
        _stray_copies(letters, own)
    return [_history(plan, number, rows) for number, rows in enumerate(own)]


def _events(plan: Plan, draw: np.random.Generator) -> tuple[list[Event], list[int], IntArray]:
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

    events = [
        Event(f"n{s}", f"n{d}", t, graph=f"g{g}", type=_TYPES[k], id=f"e{i}" if known else None)
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


def _sent(event: Event) -> Sent:
    type_ = f', "type": "{event.type}"' if event.type else ""
    id_ = "" if event.id is None else f', "id": "{event.id}"'
    value = f'{{"graph": "{event.graph}", "src": "{event.src}", "dst": "{event.dst}", "ts": {event.ts_us}{type_}{id_}}}'
    return Sent(Record(value.encode(), topic=TOPIC), Meaning.EVENT, event)


def _copies(plan: Plan, draw: random.Random, rows: Sequence[tuple[int, int, Sent]]) -> list[tuple[int, int, Sent]]:
    """Return what a producer sends again because it never heard of the first time."""
    copies = []
    for at_us, number, sent in rows:
        if sent.event is not None and sent.event.id is not None and draw.random() < plan.duplicate_share:
            wait_us = draw.choice((0, 300_000, 5_000_000, 20_000_000))
            copies.append((min(at_us + wait_us, PRODUCTION_US), number, sent))
    return copies


def _stray_copies(draw: random.Random, own: list[list[tuple[int, int, Sent]]]) -> None:
    """Send some events again, to another partition."""
    for number, rows in enumerate(list(map(list, own))):
        for at_us, order, sent in rows:
            if sent.event is not None and sent.event.id is not None and draw.random() < 0.004:
                other = (number + draw.randint(1, N_PARTITIONS - 1)) % N_PARTITIONS
                own[other].append((min(at_us + draw.choice((0, 4_000_000)), PRODUCTION_US), order, sent))


def _others(plan: Plan, draw: random.Random, n_rows: int) -> list[tuple[int, int, Sent]]:
    """Return records that are no event, or from the future."""
    others = []
    for row in range(n_rows):
        chance = draw.random()
        if chance < plan.malformed_share:
            sent = Sent(Record(draw.choice(_MALFORMED), topic=TOPIC), Meaning.MALFORMED, None)
        elif chance < plan.malformed_share + plan.future_share:
            ahead_us = now_us_at_begin(plan) + draw.randint(300, 900) * DAY_US
            event = Event("n0", "n1", ahead_us, graph="g0", id=f"f{row}")
            sent = Sent(_sent(event).record, Meaning.FUTURE, event)
        elif chance > 0.998:
            sent = Sent(Record(None, topic=TOPIC), Meaning.TOMBSTONE, None)
        else:
            continue
        others.append((draw.randint(0, PRODUCTION_US), row, sent))
    return others


def _history(plan: Plan, number: int, rows: list[tuple[int, int, Sent]]) -> History:
    rows.sort(key=lambda row: row[:2])
    at_us = np.array([row[0] for row in rows], dtype=np.int64)
    for partition, begin_us, silent_until_us in plan.silences:
        if partition == number:
            at_us[(at_us >= begin_us) & (at_us < silent_until_us)] = silent_until_us
    at_us = np.append(np.maximum.accumulate(at_us), max(PRODUCTION_US, int(at_us.max(initial=0))))
    last = _sent(Event("n0", "n1", end_us(plan), graph=f"g{number}" if plan.keyed else "g0"))
    draw = np.random.default_rng([plan.seed, 2, number])
    jumps = np.where(draw.random(len(at_us)) < plan.gap_share, draw.integers(2, 20, len(at_us)), 1)
    offset = np.cumsum(jumps) - 1
    sent = [
        Sent(Record(each.record.value, topic=TOPIC, partition=number, offset=at, ts_us=when), each.meaning, each.event)
        for each, at, when in zip(
            [*(row[2] for row in rows), last], offset.tolist(), (at_us + BEGIN_US).tolist(), strict=True
        )
    ]
    return History(sent, at_us, offset, int(offset[-1]) + 1)


def to_json(event: Event) -> str:
    """Return an event as a trace shows it."""
    return json.dumps([event.graph, event.src, event.dst, event.ts_us, event.id])
