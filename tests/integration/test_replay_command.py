"""`graphtide replay` from the command line, and into a real broker."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import record_decoder
from stream.events import Event, Interner
from stream.replay import numbered
from stream.sources.files import FileSource
from tests.conftest import Ran
from tests.servers.kafka import KafkaServer

PATIENCE_S = 60.0


@pytest.fixture
def log(clean_environment: Path) -> Path:
    path = clean_environment / "log.ndjson"
    lines = (
        {"src": f"u{n % 7}", "dst": f"v{n % 11}", "ts": 1_767_225_600 + n // 2, "graph": f"g{n % 3}"}
        for n in range(600)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def events_of(path: Path) -> list[Event]:
    return list(numbered(FileSource(path)))


def consumed(kafka: KafkaServer, topic: str, partitions: int) -> dict[int, list[Record]]:
    """Return all records of a topic by partition."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None)
    try:
        all_of = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(all_of)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(all_of)
        found: dict[int, list[Record]] = {number: [] for number in range(partitions)}
        until_s = time.monotonic() + PATIENCE_S
        while sum(map(len, found.values())) < sum(ends.values()):
            assert time.monotonic() < until_s
            for at, records in consumer.poll(timeout_ms=1000).items():
                found[at.partition] += [Record(r.value, r.key, tuple(r.headers), topic) for r in records]
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("encoding", "batch"),
    [("json", 1), ("ndjson", 50), ("arrow", 50), ("cloudevents", 1), ("cloudevents-structured", 20)],
)
def test_a_log_arrives_in_a_topic_each_event_once_in_the_order_of_its_key(
    graphtide: Callable[..., Ran], kafka: KafkaServer, log: Path, encoding: str, batch: int
) -> None:
    topic = kafka.create_topic(partitions=2)
    ran = graphtide(
        *("replay", log, "--to", "kafka", "--bootstrap-servers", kafka.bootstrap_servers, "--topic", topic),
        *("--speed", "max", "--format", encoding, "--batch", batch, "--json"),
    )
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    found = consumed(kafka, topic, 2)
    assert (told["events"], told["messages"]) == (600, sum(map(len, found.values())))
    decoder = record_decoder(DecodeOptions(), interner=Interner())
    sent = events_of(log)
    keys: dict[bytes, int] = {}
    for partition, records in found.items():
        for record in records:
            assert record.key is not None
            assert keys.setdefault(record.key, partition) == partition
    for graph in ("g0", "g1", "g2"):
        records = [r for of in found.values() for r in of if r.key == graph.encode()]
        decoded = decoder.decode(records)
        assert decoded.bad == []
        expected = [event for event in sent if event.graph == graph]
        assert [(e.src, e.dst, e.ts_us) for e in decoded.events] == [(e.src, e.dst, e.ts_us) for e in expected]
        ends = [(e.id or "").rpartition(" ")[2] for e in decoded.events]
        assert ends == [e.id for e in expected]


def test_a_file_is_played_in_pieces_that_fit_together(graphtide: Callable[..., Ran], log: Path) -> None:
    whole = graphtide("replay", log, "--to", "-", "--speed", "max")
    assert whole.code == 0, whole.err
    first = graphtide("replay", log, "--to", "file:out.ndjson", "--speed", "max", "--limit", "100", "--json")
    assert json.loads(first.out)["next_skip"] == 100
    again = graphtide("replay", log, "--to", "file:out.ndjson", "--speed", "max")
    assert again.code == 2
    assert "out.ndjson exists" in again.err
    rest = graphtide("replay", log, "--to", "file:out.ndjson", "--speed", "max", "--skip", "100", "--batch", "9")
    assert "500 events in" in rest.out
    assert Path("out.ndjson").read_text() == whole.out


def test_a_replay_that_was_killed_in_a_line_goes_on_behind_it(graphtide: Callable[..., Ran], log: Path) -> None:
    assert graphtide("replay", log, "--to", "file:whole.ndjson", "--speed", "max").code == 0
    lines = Path("whole.ndjson").read_text().splitlines(keepends=True)
    Path("out.ndjson").write_text("".join(lines[:100]) + lines[100][:7])
    rest = graphtide("replay", log, "--to", "file:out.ndjson", "--speed", "max", "--skip", "100")
    assert rest.code == 0, rest.err
    written = Path("out.ndjson").read_text().splitlines(keepends=True)
    assert written == [*lines[:100], lines[100][:7] + "\n", *lines[100:]]


def test_a_full_disk_is_told_with_the_file(graphtide: Callable[..., Ran], log: Path) -> None:
    ran = graphtide("replay", log, "--to", "file:/dev/full", "--speed", "max")
    assert ran.code == 1
    assert "/dev/full cannot be written: No space left on device" in ran.err
    assert "fix: free some space" in ran.err


def test_what_is_no_event_is_told_with_its_reasons(graphtide: Callable[..., Ran], clean_environment: Path) -> None:
    lines = ['{"src": "a", "dst": "b", "ts": 1767225600}', *('{"src": "a"}' for _ in range(8)), "no object"]
    (clean_environment / "bad.ndjson").write_text("".join(f"{line}\n" for line in lines))
    ran = graphtide("replay", "bad.ndjson", "--to", "file:out.ndjson", "--speed", "max", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert (told["events"], told["rejected"]) == (1, 9)
    said = ran.err.splitlines()
    assert "note: 9 records were rejected and not sent, for example:" in said
    assert any("bad.ndjson:2: " in line for line in said)
    assert any("bad.ndjson:10: " in line for line in said)


@pytest.mark.parametrize("source", ["bare.ndjson", "simulated"])
def test_events_that_name_no_graph_still_name_none(
    graphtide: Callable[..., Ran], clean_environment: Path, source: str
) -> None:
    named = ["default", "town"] if source == "bare.ndjson" else []
    graphs = [{"graph": name} for name in named]
    lines = [json.dumps({"src": "a", "dst": "b", "ts": 1_767_225_600, **graph}) for graph in [{}, *graphs]]
    (clean_environment / "bare.ndjson").write_text("".join(f"{line}\n" for line in lines))
    call = ("replay", source, "--speed", "max", "--years", "0.01")
    ran = graphtide(*call, "--to", "file:out.ndjson")
    assert ran.code == 0, ran.err
    found = [json.loads(line).get("graph") for line in Path("out.ndjson").read_text().splitlines()]
    assert set(found) == {None, *named}
    # Whoever reads them names their graph; those that name one keep it.
    assert graphtide("ingest", "out.ndjson", "--graph", "out", "--json").code == 0
    known = {row["graph"] for row in json.loads(graphtide("graphs", "--json").out)}
    assert known == {"out", *named}
    given = graphtide(*call, "--to", "-", "--graph", "harbour")
    assert {json.loads(line)["graph"] for line in given.out.splitlines()} == {"harbour", *named}


def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(clean_environment: Path, log: Path) -> None:
    command = [sys.executable, "-c", "from forecasting.cli import main; main()"]
    arguments = ["replay", str(log), "--to", "file:out.ndjson", "--speed", "20"]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, cwd=clean_environment, text=True)
    out = clean_environment / "out.ndjson"
    try:
        until_s = time.monotonic() + PATIENCE_S
        while not (out.exists() and out.stat().st_size):
            assert process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert 0 < len(written) < 600
    assert [line["id"] for line in written] == [event.id for event in events_of(log)[: len(written)]]
    assert f"--skip {len(written)} goes on from there" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "nowhere"), "--to cannot be 'nowhere'"),
        (("--to", "kafka"), "no topic is named"),
        (("--to", "-", "--speed", "0"), "--speed cannot be '0'"),
        (("--to", "-", "--speed", "fast"), "--speed cannot be 'fast'"),
        (("--to", "-", "--key", "dst"), "--key cannot be 'dst'"),
        (("--to", "-", "--format", "arrow"), "--format arrow is for Kafka"),
        (("--to", "kafka", "--topic", "t", "--format", "cloudevents", "--batch", "5"), "holds one event"),
        (("--to", "kafka", "--topic", "t", "--format", "avro"), "cannot be written as 'avro'"),
    ],
)
def test_wrong_calls_are_told(graphtide: Callable[..., Ran], log: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = graphtide("replay", log, *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert "fix:" in ran.err


def test_a_missing_log_is_told(graphtide: Callable[..., Ran]) -> None:
    ran = graphtide("replay", "absent.csv", "--to", "-")
    assert ran.code == 1
    assert "absent.csv" in ran.err
