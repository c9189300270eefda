"""A live stream as a source of one partition: bounded batches, one at least in every interval, with its position."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.errors import GraphtideError, InputError
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import VALUE_STAGE, Record, RecordDecoder
from stream.events import EventBatch, Interner, Reject, shown
from stream.sources.base import Position, SourceBatch
from stream.sources.live.connection import Address, Connection, Message, shown_url
from stream.sources.live.feed import Backoff, Feed
from stream.sources.live.track import Track, field

# How long the source waits before it looks whether it should stop.
_POLL_S = 0.1
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Service:
    """One kind of live stream.

    Attributes:
        name: of the service, and of the format of its messages.
        url: where it is, without a secret.
        track: makes the track from the position to go on at.
        connect: makes a connection.
        leaves_out: after a message that is too long, the server is asked to leave out such ones.
    """

    name: str
    url: str
    track: Callable[[Position | None], Track]
    connect: Callable[[Address], Connection]
    leaves_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How messages become batches.

    Attributes:
        flush_interval_s: a batch is handed over this often, also an empty one, so that steps close in quiet times.
        batch_messages: most messages of a batch.
        max_names: names that are kept before the source begins to collect anew, so that memory stays bounded.
        max_message_bytes: what the connection takes, to be told of messages that are longer.
    """

    flush_interval_s: float = 1.0
    batch_messages: int = 5000
    max_names: int = 1_000_000
    max_message_bytes: int = 8 << 20


class LiveSource:
    """A live stream; it connects again after every drop and goes on where it was, as far as the service can.

    Args:
        service: what to read.
        decoding: how; it is part of the name.
        decoder: makes a decoder whose batches have the given interner.
        pace: how messages become batches.
        backoff: when to connect again.
        stop: asked often; True ends the reading behind what was handed over.
    """

    def __init__(
        self,
        service: Service,
        decoding: DecodeOptions,
        decoder: Callable[[Interner], RecordDecoder],
        *,
        pace: Pace | None = None,
        backoff: Backoff | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._service = service
        self._decoding = decoding
        self._make_decoder = decoder
        self._pace = pace or Pace()
        self._backoff = backoff or Backoff()
        self._stop = stop
        self._track: Track | None = None

    @property
    def name(self) -> str:
        """The identity: the service, its address, and the options."""
        return f"{self._service.name}:{self._service.url}{self._decoding.fingerprint()}"

    @property
    def notes(self) -> list[str]:
        """What the user should know about this run, such as gaps; complete after the last batch."""
        return [] if self._track is None else self._track.notes()

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        """Yield what comes, until `stop` says so; see `Source`.

        Raises:
            InputError: the server will not serve this or could not be reached for too long, `resume_after` is of
                another kind of source, or a record is bad and the options are strict.
        """
        number = 0 if resume_after is None else field(resume_after, "number", int, self._service.name)
        track = self._track = self._service.track(resume_after)
        interner = Interner()
        decoder = self._make_decoder(interner)
        failure: GraphtideError | None = None
        with Feed(lambda: self._service.connect(track.address()), self._backoff) as feed:
            while failure is None and not self._stop():
                records, too_long, failure = self._collect(feed, track, number)
                number += len(records)
                if len(interner) > self._pace.max_names:
                    interner = Interner()
                    decoder = self._make_decoder(interner)
                yield self._batch(records, too_long, decoder, interner, {**track.position(), "number": number})
        if failure is not None:
            raise failure

    def _collect(
        self, feed: Feed, track: Track, number: int
    ) -> tuple[list[Record], list[Reject], GraphtideError | None]:
        """Return the new messages of one interval, those that are too long, and what ended the stream for good."""
        records: list[Record] = []
        too_long: list[Reject] = []
        until_s = time.monotonic() + self._pace.flush_interval_s
        while len(records) < self._pace.batch_messages and not self._stop():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                message = feed.next(min(left_s, _POLL_S))
            except GraphtideError as error:
                return records, too_long, error  # what came before is handed over first
            if message is None:
                continue
            now_us = time.time_ns() // 1000
            if message == Message():
                track.connected(now_us)
            elif track.is_new(message, now_us):
                records.append(self._record(message, number + len(records), now_us))
                feed.went_on()
            if message.too_long is not None:
                too_long.append(self._too_long(message.too_long, number + len(records)))
        return records, too_long, None

    def _record(self, message: Message, number: int, now_us: int) -> Record:
        headers = (("event", message.event.encode()),) if message.event else ()
        return Record(message.value, headers=headers, topic=self._service.name, offset=number, ts_us=now_us)

    def _batch(
        self,
        records: list[Record],
        too_long: list[Reject],
        decoder: RecordDecoder,
        interner: Interner,
        position: Position,
    ) -> SourceBatch:
        if too_long and self._decoding.strict:
            raise _strict_error(too_long[0])
        if not records:
            return SourceBatch(EventBatch.from_events((), interner), position, too_long, len(too_long))
        decoded = decoder.decode(records)
        rejects = [self._reject(records[bad.record], bad.reason, bad.stage) for bad in decoded.bad]
        if rejects and self._decoding.strict:
            raise _strict_error(rejects[0])
        rejects += too_long

        def letter(row: int, reason: str, stage: str) -> Reject:
            return self._reject(records[int(decoded.record[row])], reason, stage)

        return SourceBatch(decoded.events, position, rejects, len(rejects), letter=letter)

    def _too_long(self, beginning: bytes, number: int) -> Reject:
        """Return the reject of a message of which no more than its beginning was kept."""
        reason = f"longer than [live] max_message_bytes, {self._pace.max_message_bytes:,} bytes"
        if self._service.leaves_out:
            reason += "; the server is asked to leave out such messages from now on"
        place = f"{shown_url(self._service.url)}, before message {number}"
        return Reject(place, beginning.decode("utf-8", "backslashreplace")[:_SHOWN_CHARS], reason, VALUE_STAGE)

    def _reject(self, record: Record, reason: str, stage: str) -> Reject:
        value = (record.value or b"").decode("utf-8", "backslashreplace")
        place = f"{shown_url(self._service.url)}, message {record.offset}"
        return Reject(place, value[:_SHOWN_CHARS], reason, stage, record)


def _strict_error(reject: Reject) -> InputError:
    return InputError(
        f"bad record: {reject.reason}",
        place=reject.place,
        fix=f"read on past bad records ({shown(reject.record)}) without --strict",
    )
