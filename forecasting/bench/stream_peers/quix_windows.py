"""Quix Streams: the three counts of tumbling windows of one minute, by `reduce` over a state of nodes and edges.

    quix_windows.py SERVERS TOPIC RECORDS STATE_FOLDER

A window is final when a later record of its key comes; the last records of the topic are there only for that.
"""

import json
import sys
import time
import uuid
from datetime import datetime, timedelta
from typing import Any

from quixstreams import Application

IDLE_S = 10.0
# 20 s is how far events come out of order.
GRACE = timedelta(seconds=30)


def first(event: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a window after its first event."""
    return add({"events": 0, "nodes": {}, "edges": {}}, event)


def add(window: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Count one event."""
    src, dst = event["src"], event["dst"]
    window["events"] += 1
    window["nodes"][src] = window["nodes"][dst] = 1
    window["edges"][f"{src}>{dst}"] = 1
    return window


def event_time_ms(value: Any, _headers: Any, _timestamp: float, _timestamp_type: Any) -> int:
    """Return the time of an event."""
    return int(datetime.fromisoformat(value["ts"]).timestamp() * 1000)


def main(servers: str, topic: str, records: int, state_folder: str) -> None:
    """Run the pipeline over `records` records."""
    times_s: list[float] = []

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        if len(times_s) < 2:
            times_s.append(time.perf_counter())
        times_s[-1] = time.perf_counter()

    application = Application(
        broker_address=servers,
        consumer_group=f"quix-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        state_dir=state_folder,
        loglevel="ERROR",
        on_message_processed=processed,
    )
    source = application.topic(
        topic, value_deserializer="json", key_deserializer="bytes", timestamp_extractor=event_time_ms
    )
    found: list[dict[str, Any]] = []
    windows = application.dataframe(source).tumbling_window(timedelta(minutes=1), grace_ms=GRACE)
    windows.reduce(add, first).final().update(found.append)
    application.run(count=records, timeout=IDLE_S)

    nodes: dict[int, set[str]] = {}
    edges: dict[int, set[str]] = {}
    for window in found:
        nodes.setdefault(window["start"], set()).update(window["value"]["nodes"])
        edges.setdefault(window["start"], set()).update(window["value"]["edges"])
    result = {
        "seconds": times_s[-1] - times_s[0],
        "events": sum(window["value"]["events"] for window in found),
        "active_nodes": sum(map(len, nodes.values())),
        "unique_edges": sum(map(len, edges.values())),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
