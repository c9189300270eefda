"""Plays a log to a place for records in the order of its times: at its own pace, faster, or as fast as it goes."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from stream.encoders import Encoded, Encoder
from stream.events import DEFAULT_GRAPH, Event, EventBatch, Reject
from stream.sources.base import Source, SourceBatch

# An event that is due this soon is sent now: sleeping for less costs more than it is worth.
_SOON_S = 0.002
_MAX_SLEEP_S = 0.2
_REPORT_INTERVAL_S = 0.25
_ID_DIGEST_CHARS = 12

Key = Literal["graph", "src"]


class Sink(Protocol):
    """Where records go."""

    def send(self, key: bytes, record: Encoded) -> None:
        """Hand a record over; it may not have arrived before `flush` returns.

        Raises:
            GraphtideError: this record or one before it cannot be delivered.
        """
        ...

    def flush(self) -> None:
        """Return when all records have arrived; raises as `send` does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How a log is played.

    Attributes:
        speed: seconds of event time in a second; None for as fast as it goes.
        key: what the key of a record is; records of one key stay in order.
        batch: most events of a record. With more than one, each so many events in a row are cut into a record a key.
        skip: events at the start that are not sent.
        limit: most events that are sent; None for all.
        shift_to_now: all times are shifted so that the first event that is sent happens now.
    """

    speed: float | None = 1.0
    key: Key = "graph"
    batch: int = 1
    skip: int = 0
    limit: int | None = None
    shift_to_now: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has done up to now.

    Attributes:
        events, records: sent; after `replay` returned they have arrived.
        first_us, last_us: event times as they were sent, None before the first.
        seconds: how long it took.
        disorder_us: how far an event stands behind a later one that was sent before it, at most; 0 with single events.
        stopped: it was stopped before its end.
        rejected: records of the log that are no events, as far as it was read; known at the end.
        rejects: a sample of them.
    """

    events: int = 0
    records: int = 0
    first_us: int | None = None
    last_us: int | None = None
    seconds: float = 0.0
    disorder_us: int = 0
    stopped: bool = False
    rejected: int = 0
    rejects: tuple[Reject, ...] = ()

    @property
    def events_per_s(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds > 0 else 0.0


def replay(
    source: Source,
    encoder: Encoder,
    sink: Sink,
    options: ReplayOptions,
    *,
    on_progress: Callable[[Replayed], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> Replayed:
    """Send the events of a bounded source that is sorted by time.

    Every event has an id: its own, or one made of the name of the source and its place in it, the same in every replay.

    Args:
        source: a log; its name goes into the ids.
        encoder: events to records.
        sink: where they go; it is flushed before this returns, also when it was stopped.
        options: how.
        on_progress: called a few times a second.
        stop: asked between two records; True ends the replay.
        clock, sleep: seconds of a monotonic clock, and waiting by it.
        now_us: the time of the clock on the wall.

    Raises:
        InputError: the source cannot be read.
        GraphtideError: a record cannot be delivered.
    """
    run = _Replay(encoder, sink, options, on_progress, stop, clock, sleep)
    rejected, rejects = 0, list[Reject]()

    def note_rejects(batch: SourceBatch) -> None:
        nonlocal rejected
        rejected += batch.rejected
        rejects.extend(batch.rejects)

    events = numbered(source, skip=options.skip, limit=options.limit, on_batch=note_rejects)
    if options.shift_to_now:
        events = _shifted(events, now_us)
    done = run.play(events)
    return replace(done, rejected=rejected, rejects=tuple(rejects))


def numbered(
    source: Source,
    *,
    skip: int = 0,
    limit: int | None = None,
    on_batch: Callable[[SourceBatch], None] = lambda _: None,
) -> Iterator[Event]:
    """Yield the events of a source with ids; those without one get it from the source's name and their place.

    Args:
        source: a log.
        skip: events at the start that are not yielded.
        limit: most events that are; None for all.
        on_batch: told of each batch of the source before its events are yielded.
    """
    digest = hashlib.sha256(source.name.encode()).hexdigest()[:_ID_DIGEST_CHARS]
    place = 0
    end = None if limit is None else skip + limit
    for batch in source.batches(None):
        on_batch(batch)
        first, place = place, place + len(batch.events)
        if place <= skip:
            continue
        for at, event in enumerate(_events(batch.events), start=first):
            if end is not None and at >= end:
                return
            if at >= skip:
                yield event if event.id is not None else replace(event, id=f"{digest}-{at}")


class _Replay:
    def __init__(
        self,
        encoder: Encoder,
        sink: Sink,
        options: ReplayOptions,
        on_progress: Callable[[Replayed], None],
        stop: Callable[[], bool],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._encoder = encoder
        self._sink = sink
        self._options = options
        self._on_progress = on_progress
        self._stop = stop
        self._clock = clock
        self._sleep = sleep
        self._done = Replayed()
        self._began_s = clock()
        self._reported_s = self._began_s
        self._origin_us = 0

    def play(self, events: Iterator[Event]) -> Replayed:
        """Send all events when they are due."""
        block: list[Event] = []
        stopped = False
        for event in events:
            if self._done.first_us is None:
                # Reading and sorting the log took its time; the pace counts from here.
                self._began_s, self._origin_us = self._clock(), event.ts_us
                self._done = replace(self._done, first_us=event.ts_us)
            if len(block) == self._options.batch or (block and self._wait_s(event) > _SOON_S):
                self._send(block)
                block = []
            if self._stop() or not self._wait_for(event):
                stopped = True
                break
            block.append(event)
        if block and not stopped:
            self._send(block)
        self._sink.flush()
        self._report(final=True)
        return replace(self._done, stopped=stopped)

    def _wait_s(self, event: Event) -> float:
        """Return how long it is until an event is due."""
        if self._options.speed is None:
            return 0.0
        due_s = self._began_s + (event.ts_us - self._origin_us) / 1e6 / self._options.speed
        return due_s - self._clock()

    def _wait_for(self, event: Event) -> bool:
        """Wait until an event is due; return False where the replay is stopped before."""
        waits = False
        while (wait_s := self._wait_s(event)) > _SOON_S:
            if self._stop():
                return False
            if not waits:
                # Nobody should wait for what a quiet log has already said.
                self._sink.flush()
                waits = True
            self._report()
            self._sleep(min(wait_s, _MAX_SLEEP_S))
        return True

    def _send(self, block: list[Event]) -> None:
        by_key: dict[str, list[Event]] = {}
        for event in block:
            # Events that name no graph are of one graph for whoever reads them: one key keeps them in order.
            key = (event.graph or DEFAULT_GRAPH) if self._options.key == "graph" else event.src
            by_key.setdefault(key, []).append(event)
        sent = self._done
        reached_us = block[0].ts_us
        for key, events in by_key.items():
            self._sink.send(key.encode(), self._encoder.encode(events))
            disorder_us = max(sent.disorder_us, reached_us - events[0].ts_us)
            reached_us = max(reached_us, events[-1].ts_us)
            sent = replace(
                sent,
                events=sent.events + len(events),
                records=sent.records + 1,
                last_us=reached_us,
                disorder_us=disorder_us,
            )
            self._done = sent
        self._report()

    def _report(self, *, final: bool = False) -> None:
        now_s = self._clock()
        self._done = replace(self._done, seconds=now_s - self._began_s)
        if final or now_s - self._reported_s >= _REPORT_INTERVAL_S:
            self._reported_s = now_s
            self._on_progress(self._done)


def _events(batch: EventBatch) -> Iterator[Event]:
    """Yield the rows of a batch; several times as fast as iterating over it."""
    names = batch.interner.names
    ids: Sequence[str | None] = batch.ids if batch.ids is not None else [None] * len(batch)
    columns = (getattr(batch, name).tolist() for name in ("src", "dst", "ts_us", "graph", "type", "weight"))
    for src, dst, ts_us, graph, type_, weight, id_ in zip(*columns, ids, strict=True):
        yield Event(names[src], names[dst], ts_us, names[graph], names[type_], weight, id_)


def _shifted(events: Iterator[Event], now_us: Callable[[], int]) -> Iterator[Event]:
    shift_us: int | None = None
    for event in events:
        if shift_us is None:
            shift_us = now_us() - event.ts_us
        yield replace(event, ts_us=event.ts_us + shift_us)
