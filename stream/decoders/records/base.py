"""The contract of record decoders, and what their parts hand on: records in, rows of raw values, events out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import msgspec

from stream.decoders.times import TimeReader
from stream.events import DEFAULT_GRAPH, EventBatch, IntArray

# Stages in Kafka Connect's words (`__connect.errors.stage`): the bytes could not be read; what they hold is no event.
VALUE_STAGE = "VALUE_CONVERTER"
HEADER_STAGE = "HEADER_CONVERTER"
EVENT_STAGE = "TRANSFORMATION"

_value: Callable[[Any], Any] = attrgetter("value")

# As the graph of events that carry none: the record's topic.
TOPIC_GRAPH = "{topic}"

Headers = tuple[tuple[str, bytes], ...]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message. A msgspec struct: a frozen dataclass takes ten times as long to make, and there is one an event.

    Attributes:
        value: the payload; None is a tombstone.
        key: the key, if there is one.
        headers: names and values in their order; a name may come twice, a null value is b"".
        topic, partition, offset: where the record stands in its log.
        ts_us: the broker's time of the record, in microseconds since the epoch.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    topic: str = ""
    partition: int = 0
    offset: int = 0
    ts_us: int | None = None


class BadEvent(NamedTuple):
    """A record, or one event of a record, that is no valid event.

    Attributes:
        record: index into the records that were decoded.
        reason: why, in one line; it begins with the place (`line 3: `) where the record holds several events.
        stage: where it failed: one of the `…_STAGE` above.
    """

    record: int
    reason: str
    stage: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a sequence of records.

    Attributes:
        events: the n good events, in the order of the records and of the events inside each.
        record: [n] index of the record that each event came from.
        bad: bad records and bad events of records, by record; the good events of the same record count.
        skipped: records that hold no interaction by design (tombstones, deletions, canaries, an empty array).
    """

    events: EventBatch
    record: IntArray
    bad: list[BadEvent]
    skipped: int


class RecordDecoder(Protocol):
    """Decodes whole batches of records. What a record becomes depends on the record alone, not on its neighbours."""

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Decode records; bad ones are returned, never raised.

        Raises:
            InputError: something beside the records fails, such as a schema registry that cannot be reached; the
                same records can be decoded again later.
        """
        ...


@dataclass(slots=True)
class Rows:
    """n events as columns of raw values, not yet validated.

    Attributes:
        columns: role to [n] values as JSON or Arrow gives them; `src`, `dst` and `ts` are always there.
        record: [n] index of the record of each row, ascending.
        place: the place of a row inside its record (`line 3: `), "" where the record holds one event.
        times: reads `ts`; None for what the options say.
    """

    columns: dict[str, Any]
    record: IntArray
    place: Callable[[int], str]
    times: TimeReader | None = None

    def __len__(self) -> int:
        return len(self.record)


@dataclass(slots=True)
class Read:
    """What a reader made of records: rows, what could not be read, how many records hold nothing by design."""

    rows: list[Rows] = field(default_factory=list)
    bad: list[BadEvent] = field(default_factory=list)
    skipped: int = 0


class RecordReader(Protocol):
    """One format: payloads to rows. None of the records is a tombstone."""

    def read(self, records: Sequence[Record]) -> Read:
        """Read records; raises as `RecordDecoder.decode` does."""
        ...


def no_place(_row: int) -> str:
    """Return the place of an event that has its record for itself."""
    return ""


def payloads(records: Sequence[Record]) -> list[bytes]:
    """Return the values of records, none of which is a tombstone."""
    return list(map(_value, records))


def header(record: Record, name: str) -> bytes | None:
    """Return the last header of that name, in any case; None if there is none."""
    for key, value in reversed(record.headers):
        if key.lower() == name:
            return value
    return None


def topic_graph(topic: str) -> str:
    """Return a valid graph name for a topic: in lower case, other characters as `-`, cut to 64; none is `default`."""
    name = re.sub(r"[^a-z0-9._-]", "-", topic.lower())
    if not name:
        return DEFAULT_GRAPH
    return (name if name[0].isalnum() else f"t{name}")[:64]
