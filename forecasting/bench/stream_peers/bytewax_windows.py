"""Bytewax: the three counts of tumbling windows of one minute, keyed by partition.

    bytewax_windows.py SERVERS TOPIC

Its watermark is one of each key; keyed by anything else than the partition it would take events for late that are not.
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from bytewax import operators
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.testing import TestingSink, run_main

# 20 s is how far events come out of order.
WAIT = timedelta(seconds=30)


class Event(msgspec.Struct, gc=False):
    """An event as the topic has it."""

    type: str
    src: str
    dst: str
    ts: datetime


Window = tuple[list[int], set[str], set[tuple[str, str]]]


def add(window: Window, event: tuple[str, Event]) -> Window:
    """Count one event."""
    count, nodes, edges = window
    src, dst = event[1].src, event[1].dst
    count[0] += 1
    nodes.add(src)
    nodes.add(dst)
    edges.add((src, dst))
    return window


def main(servers: str, topic: str) -> None:
    """Run the flow to the end of the topic."""
    decode = msgspec.json.Decoder(Event).decode
    began_s: list[float] = []

    def parse(message: Any) -> tuple[str, Event]:
        if not began_s:
            began_s.append(time.perf_counter())
        return str(message.partition), decode(message.value)

    found: list[Any] = []
    flow = Dataflow("three_counts")
    options = {"fetch.queue.backoff.ms": "10", "queued.min.messages": "1000000"}
    source = KafkaSource([servers], [topic], tail=False, batch_size=5000, add_config=options)
    events = operators.map("parse", operators.input("in", flow, source), parse)
    keyed = operators.key_on("partition", events, lambda event: event[0])
    windows = windowing.fold_window(
        "count",
        keyed,
        windowing.EventClock(ts_getter=lambda event: event[1].ts, wait_for_system_duration=WAIT),
        windowing.TumblingWindower(length=timedelta(minutes=1), align_to=datetime(2026, 1, 1, tzinfo=UTC)),
        lambda: ([0], set(), set()),
        add,
        lambda one, other: ([one[0][0] + other[0][0]], one[1] | other[1], one[2] | other[2]),
    )
    operators.output("out", windows.down, TestingSink(found))
    run_main(flow)
    seconds = time.perf_counter() - began_s[0]

    # A window of the topic is the union of those of its partitions.
    nodes: dict[int, set[str]] = {}
    edges: dict[int, set[tuple[str, str]]] = {}
    count = 0
    for _, (window_id, window) in found:
        count += window[0][0]
        nodes.setdefault(window_id, set()).update(window[1])
        edges.setdefault(window_id, set()).update(window[2])
    sums = {"active_nodes": sum(map(len, nodes.values())), "unique_edges": sum(map(len, edges.values()))}
    sys.stdout.write(json.dumps({"seconds": seconds, "events": count, **sums}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
