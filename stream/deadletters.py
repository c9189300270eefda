"""Where dead letters go: to a topic with Kafka Connect's headers, or to a file of lines, at least once.

The store keeps them first, in the transaction that counts them; they are delivered from there, and marked as
delivered after the target has taken them. A delivery that is repeated after a crash has the same id.
"""

import base64
import json
import logging
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from infra.errors import GraphtideError, UsageError
from infra.steps import format_time
from stream.decoders.records.base import Headers, Record
from stream.lines import ends_a_line, is_file
from stream.sources.kafka.refusals import TooLargeError
from stream.store.dead_letters import DeadLetter, DeadLetters

logger = logging.getLogger(__name__)

ID_HEADER = "graphtide.deadletter.id"
SOURCE_HEADER = "graphtide.deadletter.source"
REPLAY_HEADER = "graphtide.replay.of"
_CONNECT = "__connect.errors."
# Kafka Connect names the class of an exception; consumers of dead letters tell kinds apart by it.
_EXCEPTION_CLASS = "graphtide.RejectedEvent"
_LETTERS = 500
# How the names of sources begin whose letters have a topic; those of others only name a graph or a request.
_KAFKA_SOURCE = "kafka:"


class Sender(Protocol):
    """A client of a broker that sends records; `stream.sources.kafka.sender.KafkaSender` is one."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        ts_ms: int | None = None,
    ) -> None:
        """Hand a record over for sending; raises GraphtideError where it cannot be sent, as `flush` does."""
        ...

    def flush(self) -> None:
        """Return when everything that was sent is acknowledged.

        Raises:
            TooLargeError: a record is too large; others can be sent after it.
            GraphtideError: something was not acknowledged.
        """
        ...


class Target(Protocol):
    """Takes dead letters."""

    @property
    def refused(self) -> Collection[int]:
        """The numbers of letters that it was given and can never take."""
        ...

    def take(self, letters: Sequence[DeadLetter]) -> None:
        """Return when all letters are durably kept, but for those that are `refused` from now on.

        Raises:
            GraphtideError: they are not; some may be, and will come again.
        """
        ...


class TopicTarget:
    """A topic that gets the records as they were, with headers that say what was wrong."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the sender to its owner."""

    def __init__(self, sender: Sender, topic: str) -> None:
        self._sender = sender
        self._topic = topic
        self._refused: set[int] = set()

    @property
    def refused(self) -> Collection[int]:
        """The numbers of letters that are too large for the topic."""
        return self._refused

    def take(self, letters: Sequence[DeadLetter]) -> None:
        """Send letters and wait for the broker's word on all; one that is too large is logged and holds up no other."""
        try:
            self._send(letters)
        except TooLargeError:
            # Only alone they tell which one it was, once nothing waits any more. The others may come twice, with the
            # same id.
            with suppress(TooLargeError):
                self._sender.flush()
            for letter in letters:
                self._send_alone(letter)

    def _send(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            record = letter.record
            # A tombstone needs a key, and a topic that is compacted would drop what has the same one.
            self._sender.send(self._topic, record.value or b"", record.key, letter_headers(letter), ts_ms=_ms(record))
        self._sender.flush()

    def _send_alone(self, letter: DeadLetter) -> None:
        try:
            self._send([letter])
        except TooLargeError as error:
            self._refused.add(letter.number)
            logger.warning("dead letter %d stays in the store: %s", letter.number, error)


class FileTarget:
    """A file that gets one JSON object a line; text as text, other bytes as base64.

    Raises:
        GraphtideError: the file cannot be written.
    """

    refused: Collection[int] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, in which a part that the disk had no room for would stay.
            self._file = path.open("ab", buffering=0)
            if not ends_a_line(path):
                # Of a process that was killed in it: the letter comes again, and needs a line of its own.
                self._file.write(b"\n")
        except OSError as error:
            raise self._failed(error) from None

    def take(self, letters: Sequence[DeadLetter]) -> None:
        """Append letters and wait for the disk."""
        lines = b"".join(json.dumps(letter_json(letter)).encode() + b"\n" for letter in letters)
        try:
            end = self._file.tell()
            try:
                written = 0
                while written < len(lines):
                    written += self._file.write(lines[written:])
                os.fsync(self._file.fileno())
            except OSError:
                # No half a line stays for the next one to be appended to.
                os.ftruncate(self._file.fileno(), end)
                raise
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _failed(self, error: OSError) -> GraphtideError:
        return GraphtideError(
            f"cannot write dead letters to {self._path}: {error.strerror or error}",
            place="[dead_letters] target",
            fix="free some space or name another file; the letters stay in the store and are delivered later",
        )


def deliver(letters: DeadLetters, target: Target, limit: int = _LETTERS) -> list[int]:
    """Hand up to `limit` undelivered letters to the target; return their numbers, to be marked as delivered.

    Letters that the target refuses are left out; none is returned only where nothing else waits.

    Raises:
        GraphtideError: the target has not taken them all; they will be delivered again.
    """
    while waiting := _waiting(letters, target, limit):
        target.take(waiting)
        taken = [letter.number for letter in waiting if letter.number not in target.refused]
        if taken:
            return taken
    return []


def _waiting(letters: DeadLetters, target: Target, limit: int) -> list[DeadLetter]:
    # The refused ones are found, too.
    found = letters.to_deliver(limit + len(target.refused))
    return [letter for letter in found if letter.number not in target.refused][:limit]


def has_topic(letter: DeadLetter) -> bool:
    """Tell whether a letter's record came from a topic of Kafka, to which it can be sent again."""
    return letter.source.startswith(_KAFKA_SOURCE) and bool(letter.record.topic)


def check_topics(letters: Sequence[DeadLetter]) -> None:
    """Make sure that all letters can be sent again.

    Raises:
        UsageError: a letter's record came from no topic.
    """
    for letter in letters:
        if not has_topic(letter):
            raise UsageError(
                f"dead letter {letter.number} came from {letter.source}, which has no topic to send it to",
                fix="write its value, mended, to a file of its own and ingest that with --backfill"
                if is_file(letter.source)
                else None,
            )


def resend(letters: Sequence[DeadLetter], sender: Sender) -> list[int]:
    """Send the records of letters to their topics and partitions again; return the numbers, to be marked as replayed.

    A record with several letters is sent once. Where it holds good events beside the bad one, they come twice: give
    events an `id`, and they count once.

    Raises:
        UsageError: a letter's record came from no topic; nothing was sent then.
        GraphtideError: the brokers have not acknowledged them all.
    """
    check_topics(letters)
    sent: set[tuple[str, int, int]] = set()
    for letter in letters:
        record = letter.record
        at = (record.topic, record.partition, record.offset)
        if at not in sent:
            sent.add(at)
            headers = (*record.headers, (REPLAY_HEADER, letter.id.encode()))
            sender.send(record.topic, record.value, record.key, headers, record.partition, _ms(record))
    sender.flush()
    return [letter.number for letter in letters]


def letter_headers(letter: DeadLetter) -> Headers:
    """Return the headers of a record in the dead letter topic: its own, then what was wrong."""
    record = letter.record
    errors = {
        f"{_CONNECT}topic": record.topic,
        f"{_CONNECT}partition": str(record.partition),
        f"{_CONNECT}offset": str(record.offset),
        f"{_CONNECT}stage": letter.stage,
        f"{_CONNECT}exception.class.name": _EXCEPTION_CLASS,
        f"{_CONNECT}exception.message": letter.reason,
        # Milliseconds since the epoch, as Kafka writes times.
        f"{_CONNECT}timestamp": str(letter.rejected_us // 1000),
        SOURCE_HEADER: letter.source,
        ID_HEADER: letter.id,
    }
    kept = tuple((name, value) for name, value in record.headers if name not in errors)
    return (*kept, *((name, text.encode()) for name, text in errors.items()))


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter as JSON-able values; bytes that are no text stand under `…_base64`."""
    record = letter.record
    return {
        "id": letter.id,
        "number": letter.number,
        "source": letter.source,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": None if record.ts_us is None else format_time(record.ts_us),
        "place": letter.place,
        "stage": letter.stage,
        "reason": letter.reason,
        "rejected": format_time(letter.rejected_us),
        "delivered": None if letter.delivered_us is None else format_time(letter.delivered_us),
        "replayed": None if letter.replayed_us is None else format_time(letter.replayed_us),
        **_readable("key", record.key),
        **_readable("value", record.value),
        "headers": [{"name": name, **_readable("value", value)} for name, value in record.headers],
    }


def _readable(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _ms(record: Record) -> int | None:
    return None if record.ts_us is None else record.ts_us // 1000
