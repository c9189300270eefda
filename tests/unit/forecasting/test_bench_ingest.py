"""The benchmark of ingestion: its input is what it says, wrong counts have no figure, rates compare the right way."""

import json
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from forecasting.bench import ingest, ingest_systems
from forecasting.bench.broker import Topic
from forecasting.bench.ingest import CASES, TARGETS, Lane
from forecasting.bench.ingest_systems import Ran
from forecasting.bench.latency import read_until_told
from forecasting.bench.processes import PeerError
from forecasting.bench.report import Report, Row
from forecasting.bench.stream_input import PARTITIONS, EventLog, Truth, batched

SMALL = EventLog.make(2_000)
TOPIC = Topic("127.0.0.1:1", "events", 2_000, SMALL.truth())


def slow(topic: Topic) -> Ran:
    return Ran(topic.truth.events, 2.0, 1.0, 300 << 20)


def fast(topic: Topic) -> Ran:
    return Ran(topic.truth.events, 0.5, 0.4, 200 << 20)


def test_the_published_input_has_the_published_counts():
    assert EventLog.make().truth() == Truth(1_000_000, 447_453, 734_397)


def test_lines_hold_the_events_that_are_counted():
    lines = SMALL.json_lines()
    events = [json.loads(line) for line in lines]
    nodes = {(event["ts"][:16], event[role]) for event in events for role in ("src", "dst")}
    edges = {(event["ts"][:16], event["src"], event["dst"]) for event in events}
    assert SMALL.truth() == Truth(len(events), len(nodes), len(edges))
    assert any(one["ts"] > other["ts"] for one, other in pairwise(events))
    assert b"\n".join(batched(lines, 300)).split(b"\n") == lines
    assert SMALL.head(10).json_lines() == lines[:10]
    assert len(EventLog.closing_lines()) == PARTITIONS


def test_a_process_is_measured_and_its_result_read():
    program = "import json; x = bytearray(60 << 20); print('noise'); print(json.dumps({'seconds': 1.5}))"
    answer, (cpu_s, peak_bytes) = ingest_systems._run(
        [sys.executable, "-c", program + "; import time; time.sleep(0.3)"]
    )
    assert answer == {"seconds": 1.5}
    assert 0 < cpu_s < 10
    assert 60 << 20 < peak_bytes < 120 << 20


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.exit('no such topic')", "ended with code 1: …no such topic"),
        ("print('hello')", "printed no result, but 'hello'"),
        ("", "printed no result"),
    ],
)
def test_a_process_without_a_result_is_told(program, reason):
    with pytest.raises(PeerError, match=reason):
        ingest_systems._run([sys.executable, "-c", program])


def test_a_process_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(ingest_systems, "RUN_TIMEOUT_S", 0.2)
    with pytest.raises(PeerError, match="more than 0 s"):
        ingest_systems._run([sys.executable, "-c", "import time; time.sleep(60)"])


def test_wrong_counts_are_no_figure():
    lane = Lane(lambda topic: ingest_systems._check(Truth(2_000, 1, 1), topic), TOPIC)
    lane.run()
    lane.run()
    assert "it counted" in lane.failure
    report = Report("ingest", "")
    ingest._report_rates(report, {"graphtide": lane}, ["three-counts", "rss"])
    assert not report.rows
    assert {(each.case, each.system) for each in report.missing} == {
        ("three-counts", "graphtide"),
        ("three-counts-cpu", "graphtide"),
        ("rss", "graphtide"),
    }


def test_more_events_a_second_are_better_and_less_memory_is():
    lanes = {
        "graphtide": Lane(fast, TOPIC),
        "graphtide-poll": Lane(fast, TOPIC),
        "graphtide-fast": Lane(fast, TOPIC),
        "graphtide-batched": Lane(fast, TOPIC),
        "graphtide-batched-fast": Lane(fast, TOPIC),
        "kafka-python-poll": Lane(fast, TOPIC),
        "bytewax": Lane(slow, TOPIC),
        "quix": Lane(slow, replace(TOPIC, records=2_004)),
    }
    for lane in lanes.values():
        lane.run()
    report = Report("ingest", "")
    ingest._report_rates(report, lanes, CASES)
    for case in TARGETS:
        for peer in TARGETS[case]:
            report.compare(case, peer, TARGETS[case][peer])
    found = {(ratio.case, ratio.peer): (ratio.ratio, ratio.met) for ratio in report.ratios}
    assert found == {
        ("poll", "kafka-python-poll"): (1, False),
        ("three-counts", "kafka-python-poll"): (1, True),
        ("three-counts", "bytewax"): (4, True),
        ("three-counts", "quix"): (4, False),
        ("three-counts-fast", "bytewax"): (4, True),
        ("batched-ndjson", "single-message"): (1, False),
        ("batched-full-schema", "target"): (0.004, False),
        ("rss", "bytewax"): (1.5, True),
    }
    rows = {(row.case, row.system): row for row in report.rows}
    assert rows["three-counts", "bytewax"] == Row("three-counts", "bytewax", 1_000, "events/s", 1_000, 1)
    assert rows["three-counts-cpu", "bytewax"].value == 500


def test_case_and_peer_names_are_the_fixed_ones():
    assert tuple(TARGETS) == CASES
    assert {case: set(peers) for case, peers in TARGETS.items()} == {
        "poll": {"kafka-python-poll"},
        "three-counts": {"kafka-python-poll", "bytewax", "quix"},
        "three-counts-fast": {"bytewax"},
        "batched-ndjson": {"single-message"},
        "batched-full-schema": {"target"},
        "rss": {"bytewax"},
        "reader-p99": {"target"},
    }


def test_reading_waits_for_a_store_and_ends_when_told(monkeypatch, tmp_path):
    turns = iter([[], [], ["told"]])
    monkeypatch.setattr("select.select", lambda *_arguments: (next(turns), [], []))
    assert read_until_told(f"sqlite:///{tmp_path}/none.db") == []


def test_the_command_refuses_a_case_that_there_is_not(graphtide):
    wrong = graphtide("bench", "ingest", "--cases", "three-counts,four")
    assert (wrong.code, "there is no case 'four'" in wrong.err) == (2, True)
