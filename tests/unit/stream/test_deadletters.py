import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.errors import GraphtideError, UsageError
from stream.deadletters import FileTarget, TopicTarget, deliver, letter_headers, resend
from stream.decoders.records.base import Record
from stream.events import Reject
from stream.sources.kafka.refusals import TooLargeError
from stream.store import open_dead_letters, open_writer
from stream.store.dead_letters import DeadLetter

NOW_US = 1_700_000_000_000_000
OWN = (("trace", b"\xff"), ("__connect.errors.topic", b"older"))
RECORDS = [
    Record(b'{"src": "a"}', b"k", OWN, "events", 3, 70, 1_600_000_000_123_456),
    Record(b"\xff\x00", None, (), "events", 0, 71, None),
    Record(None, b"k", (), "other", 1, 5, None),
]


class Broker:
    """Takes records; refuses the one numbered `broken`, and forgets what was not acknowledged."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken
        self.pending: list[tuple[object, ...]] = []
        self.acknowledged: list[tuple[object, ...]] = []

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        ts_ms: int | None = None,
    ) -> None:
        self.pending.append((topic, value, key, tuple(headers), partition, ts_ms))

    def flush(self) -> None:
        pending, self.pending = self.pending, []
        if self.broken is not None and len(pending) > self.broken:
            self.acknowledged += pending[: self.broken]
            raise GraphtideError("not acknowledged")
        self.acknowledged += pending


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with open_writer(url, now_us=lambda: NOW_US) as writer, writer.transaction():
        source = writer.add_source("kafka:c/g", split_by_type=False)
        writer.add_rejects(
            source,
            [Reject("p", "…", f"dst is empty: é{at}", "TRANSFORMATION", record) for at, record in enumerate(RECORDS)],
            keep=0,
        )
    return url


def deliver_and_mark(url: str, target: TopicTarget | FileTarget, limit: int) -> int:
    with open_writer(url) as writer, open_dead_letters(url) as letters:
        numbers = deliver(letters, target, limit)
        with writer.transaction():
            writer.letters_delivered(numbers)
        return len(numbers)


def all_letters(url: str) -> list[DeadLetter]:
    with open_dead_letters(url) as letters:
        return letters.letters(limit=100)


def test_a_topic_gets_the_record_and_what_was_wrong(url: str) -> None:
    broker = Broker()
    assert [deliver_and_mark(url, TopicTarget(broker, "dead"), 2) for _ in range(3)] == [2, 1, 0]
    assert [(topic, value, key) for topic, value, key, *_ in broker.acknowledged] == [
        ("dead", b'{"src": "a"}', b"k"),
        ("dead", b"\xff\x00", None),
        ("dead", b"", b"k"),
    ]
    _, _, _, headers, partition, ts_ms = broker.acknowledged[0]
    assert (partition, ts_ms) == (None, 1_600_000_000_123)
    assert headers == (
        ("trace", b"\xff"),
        ("__connect.errors.topic", b"events"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"70"),
        ("__connect.errors.stage", b"TRANSFORMATION"),
        ("__connect.errors.exception.class.name", b"graphtide.RejectedEvent"),
        ("__connect.errors.exception.message", "dst is empty: é0".encode()),
        ("__connect.errors.timestamp", b"1700000000000"),
        ("graphtide.deadletter.source", b"kafka:c/g"),
        ("graphtide.deadletter.id", all_letters(url)[0].id.encode()),
    )


def test_what_was_not_acknowledged_comes_again_with_the_same_id(url: str) -> None:
    broker = Broker(broken=1)
    with pytest.raises(GraphtideError, match="not acknowledged"):
        deliver_and_mark(url, TopicTarget(broker, "dead"), 10)
    broker.broken = None
    assert deliver_and_mark(url, TopicTarget(broker, "dead"), 10) == 3
    ids = [dict(headers)["graphtide.deadletter.id"] for _, _, _, headers, *_ in broker.acknowledged]  # type: ignore[call-overload]
    assert len(ids) == 4
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_file_gets_a_line_each(url: str, tmp_path: Path) -> None:
    path = tmp_path / "dead" / "letters.ndjson"
    target = FileTarget(path)
    assert deliver_and_mark(url, target, 2) == 2
    assert deliver_and_mark(url, target, 2) == 1
    target.close()
    first, second, third = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["topic"], first["partition"], first["offset"]) == ("events", 3, 70)
    assert (first["stage"], first["reason"], first["rejected"]) == (
        "TRANSFORMATION",
        "dst is empty: é0",
        "2023-11-14T22:13:20Z",
    )
    assert (first["value"], first["key"]) == ('{"src": "a"}', "k")
    assert first["headers"][0] == {"name": "trace", "value_base64": "/w=="}
    assert second["value_base64"] == "/wA="
    assert (third["value"], third["id"]) == (None, all_letters(url)[2].id)


def test_a_full_disk_leaves_no_half_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "letters.ndjson"
    path.write_text("{}\n")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(GraphtideError, match="No space left") as caught:
            deliver_and_mark(url, FileTarget(path), 10)
    assert "delivered later" in str(caught.value.fix)
    assert path.read_text() == "{}\n"
    assert deliver_and_mark(url, FileTarget(path), 10) == 3


def test_half_a_line_of_a_process_that_was_killed_spoils_no_letter(url: str, tmp_path: Path) -> None:
    path = tmp_path / "letters.ndjson"
    path.write_text('{"id": "events/3/7')
    target = FileTarget(path)
    assert deliver_and_mark(url, target, 10) == 3
    target.close()
    half, *whole = path.read_text().splitlines()
    assert half == '{"id": "events/3/7'
    assert [json.loads(line)["id"] for line in whole] == [letter.id for letter in all_letters(url)]


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(GraphtideError, match="cannot write dead letters to /proc/nowhere/x"):
        FileTarget(Path("/proc/nowhere/x"))


def test_a_record_is_sent_again_as_it_was(url: str) -> None:
    broker = Broker()
    letters = all_letters(url)
    assert resend([*letters, letters[0]], broker) == [*(letter.number for letter in letters), letters[0].number]
    assert len(broker.acknowledged) == 3
    assert broker.acknowledged[0] == (
        "events",
        b'{"src": "a"}',
        b"k",
        (*OWN, ("graphtide.replay.of", letters[0].id.encode())),
        3,
        1_600_000_000_123,
    )
    assert broker.acknowledged[2][1] is None


def test_a_record_without_a_topic_cannot_be_sent_again() -> None:
    letter = DeadLetter(4, "sse:x", Record(b"v"), "", "late", "", NOW_US)
    with pytest.raises(UsageError, match="dead letter 4 came from sse:x, which has no topic"):
        resend([letter], Broker())


def test_a_replayed_letter_that_dies_again_keeps_one_header_of_each_kind() -> None:
    letter = DeadLetter(4, "kafka", RECORDS[0], "", "late", "", NOW_US)
    names = [name for name, _ in letter_headers(letter)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("source", ["spool:1", "sse:x"])
def test_what_came_from_no_topic_of_kafka_stops_all_before_anything_is_sent(url: str, source: str) -> None:
    broker = Broker()
    letter = DeadLetter(4, source, RECORDS[0], "", "late", "", NOW_US)
    with pytest.raises(UsageError, match=f"dead letter 4 came from {source}, which has no topic"):
        resend([*all_letters(url), letter], broker)
    assert not broker.acknowledged + broker.pending


class Narrow(Broker):
    """Refuses one value as too large: at once, or when it is flushed."""

    def __init__(self, too_large: bytes, *, late: bool) -> None:
        super().__init__()
        self._too_large = too_large
        self._late = late

    def send(self, topic: str, value: bytes | None, *rest: Any, **more: Any) -> None:
        if value == self._too_large and not self._late:
            raise TooLargeError("too large")
        super().send(topic, value, *rest, **more)

    def flush(self) -> None:
        if any(value == self._too_large for _, value, *_ in self.pending):
            self.pending = []
            raise TooLargeError("too large")
        super().flush()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("limit", [1, 10])
def test_a_letter_that_is_too_large_holds_up_no_other(
    url: str, limit: int, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Narrow(b'{"src": "a"}', late=late)
    target = TopicTarget(broker, "dead")
    with caplog.at_level(logging.WARNING):
        while deliver_and_mark(url, target, limit):
            pass
    assert {value for _, value, *_ in broker.acknowledged} == {b"\xff\x00", b""}
    assert [letter.delivered_us is None for letter in all_letters(url)] == [True, False, False]
    [line] = caplog.messages
    assert line.startswith("dead letter 1 stays in the store: too large")
