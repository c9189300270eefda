"""Kafka topics as a partitioned source: where to go on comes from the store, and nothing is ever skipped in silence."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from infra.errors import InputError
from stream.sources.base import Claims, Part, PartitionedBatch, Position
from stream.sources.kafka.client import (
    Bounds,
    KafkaClient,
    OutOfRangeError,
    Partition,
    Polled,
    Topic,
    UnavailableError,
)
from stream.sources.kafka.decoding import BatchDecoder
from stream.sources.kafka.patience import Outage, ask_patiently, decoded_patiently
from stream.sources.kafka.plan import KafkaOptions
from stream.sources.kafka.reading import (
    KafkaStatus,
    PartitionStatus,
    Reading,
    advance,
    newly_idle,
    stalled,
    take_unsaid,
)
from stream.sources.kafka.topics import (
    TopicChoice,
    check_topic_id,
    deleted_topic,
    look_up,
    lost_records,
    resume_offset,
)

logger = logging.getLogger(__name__)

EARLIEST = "earliest"
POLL_S = 0.5
# How long records that are known to be there are waited for while others wait to be handed over.
NEXT_POLL_S = 0.01
RECOVERY_PAUSE_S = 0.2
COMMIT_EVERY_S = 5.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Coming:
    """What one poll brought, while it is decoded.

    Attributes:
        batch: of the partitions that records came from.
        again: has it decoded anew.
        others: partitions that moved or became idle without records, with their positions and whether they are idle.
        offsets: where the partitions go on after it.
    """

    batch: Future[PartitionedBatch]
    again: Callable[[], Future[PartitionedBatch]]
    others: tuple[tuple[str, Position, bool], ...]
    offsets: Mapping[Partition, int]


class KafkaSource:
    """Topics of one cluster, a context manager. Entering connects, so that mistakes show before anything is written.

    Its name is that of the cluster and the group (of the topics without one), so that a restart finds its positions
    whatever addresses the brokers have.

    Args:
        connect: makes a client, and raises as the clients do.
        decoder: of the records.
        options: what is read and how.
        say: tells the user what goes on, a line at a time.
    """

    def __init__(
        self,
        connect: Callable[[], KafkaClient],
        decoder: BatchDecoder,
        options: KafkaOptions,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self._decoder = decoder
        self._options = options
        self._say = say
        self._choice = TopicChoice(options.topics)
        self._client: KafkaClient | None = None
        self._cluster_id = ""
        self._topics: dict[str, Topic] = {}
        self._readings: dict[Partition, Reading] = {}
        # Those that were there at the start: only they may begin at their end, what comes later is read from its first.
        self._first: frozenset[Partition] = frozenset()
        # Whether we know which partitions are ours.
        self._is_placed = False
        # Where the partitions of this process go on after what was handed over last.
        self._committed: Mapping[Partition, int] = {}
        # The source's clock stands while a batch is committed: silence counts only while we listen.
        self._away_s = 0.0
        self._probed_s = self._committed_s = 0.0
        self._outage = Outage(options.where, say)

    def __enter__(self) -> Self:
        timeout_s = self._options.connect_timeout_s
        self._client = self._ask(self._connect, timeout_s)
        try:
            self._cluster_id = self._ask(self._client.cluster_id, timeout_s)
            self._topics = self._ask(self._chosen_topics, timeout_s)
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()

    @property
    def name(self) -> str:
        """The identity of the source in the store."""
        return f"kafka:{self._cluster_id}/{self._options.group or self._choice.label}"

    def status(self) -> KafkaStatus:
        """Return what the source does now."""
        partitions = tuple(
            PartitionStatus(str(each.partition), each.offset, each.lag, each.idle, each.gaps, each.missing)
            for each in list(self._readings.values())  # a display asks from another thread
        )
        return KafkaStatus(self.client.name, partitions, self._outage.lasts_s)

    @property
    def client(self) -> KafkaClient:
        """The client; there is one inside the context only."""
        assert self._client is not None, "the source is not open"
        return self._client

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        """Claim partitions, then yield batches; see `PartitionedSource`.

        Raises:
            InputError: topics are not there (any more), do not fit what the store has of them, or stand still.
        """
        self._begin(claims)
        # Decodes what came while what came before is committed.
        with ThreadPoolExecutor(1, "graphtide-decode") as thread:
            waiting: list[_Coming] = []  # one at most
            while not self._is_done():
                try:
                    polled = self._poll(NEXT_POLL_S if waiting else POLL_S)
                except InputError:
                    yield from self._hand_over(waiting)
                    raise
                if polled.assigned is not None:
                    # By now another process may have what waits: whoever has it reads it again.
                    waiting.clear()
                    self._take(claims, polled.assigned)
                coming = self._read(polled, thread)
                yield from self._hand_over(waiting)
                waiting.append(coming)
                is_time = self._now_s() - self._probed_s >= self._options.probe_every_s
                if is_time or not (polled.chunks and any(each.lag for each in self._readings.values())):
                    yield from self._hand_over(waiting)
                if is_time:
                    self._probe(claims)
            yield from self._hand_over(waiting)
            waiting.append(self._read(Polled(), thread))
            yield from self._hand_over(waiting, end=self._options.close_at_end)
        self._commit(now=True)
        claims.release([str(each) for each in self._readings])

    def _now_s(self) -> float:
        return time.monotonic() - self._away_s

    def _ask(self, ask: Callable[[], Answer], timeout_s: float | None = None) -> Answer:
        return ask_patiently(ask, where=self._options.where, timeout_s=timeout_s, say=self._say)

    def _chosen_topics(self) -> dict[str, Topic]:
        topics = self.client.topics(self._choice.names)
        if self._choice.names is not None and len(topics) < len(set(self._choice.names)):
            topics = self.client.topics()  # the error names those with similar names
        return self._choice.of(topics, self._options.where)

    # What is read.

    def _begin(self, claims: Claims) -> None:
        self._is_placed = self._options.group is None
        partitions = _partitions(self._topics)
        self._first = frozenset(partitions)
        claims.announce([str(each) for each in partitions])
        if self._is_placed:
            self._take(claims, partitions)
        else:
            self.client.join(list(self._topics))

    def _is_done(self) -> bool:
        return self._is_placed and not self._options.follow and all(each.reached for each in self._readings.values())

    def _take(self, claims: Claims, partitions: Sequence[Partition]) -> None:
        """Read these partitions and no others from now on, each from where the store says."""
        gone = [str(each) for each in self._readings if each not in partitions]
        if gone:
            claims.release(gone)
        # All are claimed, those that we had too: they may have been with another process in between.
        found = claims.claim([str(each) for each in partitions]) if partitions else {}
        topics, bounds = self._ask(lambda: look_up(self.client, partitions, self._options.where))
        before = self._readings
        self._readings = {}
        self._committed = {}
        for partition in partitions:
            topic, there = topics[partition.topic], bounds[partition]
            position = found[str(partition)]
            start = self._options.start if partition in self._first else EARLIEST
            offset = resume_offset(partition, position, topic, there, start=start, where=self._options.where)
            # Where nothing is stored the place is kept at once: the end of the log may be another one at the next run.
            reading = Reading(partition, topic.id, offset, self._now_s(), end=there.end, unsaid=position is None)
            if partition in before:
                reading.gaps, reading.missing = before[partition].gaps, before[partition].missing
                reading.stalled_at = before[partition].stalled_at
            if not self._options.follow:
                reading.target = there.end
            self._check_first(reading, there)
            self._readings[partition] = reading
        self.client.start({each.partition: each.offset for each in self._readings.values()})
        self._is_placed = True
        self._probed_s = self._now_s()

    def _check_first(self, reading: Reading, bounds: Bounds) -> None:
        """Deal with records that the brokers deleted before they were read."""
        if reading.offset >= bounds.first:
            return
        if not self._options.skip_lost:
            raise lost_records(reading.partition, reading.offset, bounds, self._options.where)
        missing = reading.skip_to(bounds.first, self._now_s())
        self._say(f"gap: {missing:,} records of {reading.partition} were deleted before they were read")

    def _poll(self, timeout_s: float) -> Polled:
        try:
            options = self._options
            return self.client.poll(options.batch_records, options.batch_bytes, min(timeout_s, options.probe_every_s))
        except OutOfRangeError:
            self._recover_range()
            return Polled()

    def _recover_range(self) -> None:
        """Find out why the brokers do not have what is to be read next, and go on or stop."""
        time.sleep(RECOVERY_PAUSE_S)  # what asked for it may be over soon, such as a leader that moves
        topics = self._ask(lambda: self.client.topics(list(self._topics)))
        self._check_topics(topics)
        bounds = self._ask(lambda: self.client.bounds(list(self._readings)))
        for partition, there in bounds.items():
            reading = self._readings[partition]
            resume_offset(
                partition, reading.position(), topics[partition.topic], there, start="", where=self._options.where
            )
            self._check_first(reading, there)
        self.client.start({each.partition: each.offset for each in self._readings.values()})

    def _check_topics(self, topics: Mapping[str, Topic]) -> None:
        for partition, reading in self._readings.items():
            if partition.topic not in topics:
                raise deleted_topic(partition, self._options.where)
            check_topic_id(partition, reading.topic_id, topics[partition.topic], self._options.where)

    # What is handed over.

    def _read(self, polled: Polled, thread: ThreadPoolExecutor) -> _Coming:
        """Let the thread decode what was polled; note how far partitions are, and what else is new of them."""
        taken = advance(self._readings, polled, self._now_s(), say=self._say)
        positions = {chunk.partition: self._readings[chunk.partition].position() for chunk in taken}

        def decode() -> Future[PartitionedBatch]:
            return thread.submit(self._decoder.decode, taken, positions)

        batch = decode()
        others = take_unsaid(self._readings, positions)
        return _Coming(batch, decode, others, {each.partition: each.offset for each in self._readings.values()})

    def _hand_over(self, waiting: list[_Coming], *, end: bool = False) -> Iterator[PartitionedBatch]:
        """Yield what waits, and wait for nothing any more."""
        while waiting:
            coming = waiting.pop()
            batch = self._decoded(coming)
            at = len(batch.events)
            others = [Part(name, at, at, position, idle=idle) for name, position, idle in coming.others]
            left_s = time.monotonic()
            yield replace(batch, parts=(*batch.parts, *others), end=end)
            self._away_s += time.monotonic() - left_s
            self._committed = coming.offsets
            self._commit()

    def _decoded(self, coming: _Coming) -> PartitionedBatch:
        """Return a decoded batch; where the source is followed, wait for a schema registry as for brokers."""
        if not self._options.follow:
            return coming.batch.result()
        began_s = time.monotonic()
        try:
            return decoded_patiently(coming.batch, coming.again, say=self._say)
        finally:
            self._away_s += time.monotonic() - began_s

    def _commit(self, *, now: bool = False) -> None:
        """Tell the group how far was committed to the store, for tools that show lag."""
        if self._options.group is None or not (now or self._now_s() - self._committed_s >= COMMIT_EVERY_S):
            return
        self._committed_s = self._now_s()
        if self._committed:
            self.client.commit(self._committed)

    # Whether all is well.

    def _probe(self, claims: Claims) -> None:
        """Ask the brokers where the partitions end: who is idle, who stands still, which topics are new or gone."""
        try:
            topics = self.client.topics(self._choice.names)
            known = {name: topics[name] for name in self._topics if name in topics}
            self._check_topics(known)
            bounds = self.client.bounds(list(self._readings)) if self._readings else {}
        except UnavailableError as error:
            self._outage.goes_on(error)
            return
        finally:
            self._probed_s = self._now_s()
        now_s = self._now_s()
        if self._outage.end():
            for reading in self._readings.values():
                reading.quiet_since_s = now_s  # while nobody could say anything, silence meant nothing
        for partition, there in bounds.items():
            self._readings[partition].end = there.end
        newly_idle(self._readings.values(), now_s, self._options.idle_timeout_s)
        self._mend_stall(now_s)
        if self._options.follow:
            self._take_new(claims, self._choice.of(topics, self._options.where))

    def _mend_stall(self, now_s: float) -> None:
        """Make the client anew where a partition stands still; once, then it is an error."""
        still = stalled(self._readings.values(), now_s, self._options.stall_timeout_s)
        if not still:
            return
        first = still[0]
        stands = f"{first.partition} stands at offset {first.offset}, {first.lag:,} records before its end"
        if any(reading.stalled_at == reading.offset for reading in still):
            raise InputError(
                f"{stands}, also with a new client",
                place=f"Kafka at {self._options.where}, {self.client.name}",
                fix="look at the brokers' logs; try --client with the other library",
            )
        self._say(f"warning: {stands}, for {self._options.stall_timeout_s:g} s; going on with a new client")
        for reading in still:
            reading.stalled_at = reading.offset
        for reading in self._readings.values():
            reading.quiet_since_s = now_s
        self.client.close()
        self._client = self._ask(self._connect)
        if self._options.group is None:
            self.client.start({each.partition: each.offset for each in self._readings.values()})
        else:
            self.client.join(list(self._topics))

    def _take_new(self, claims: Claims, topics: Mapping[str, Topic]) -> None:
        """Read topics and partitions, too, that came after the start."""
        if topics == self._topics:
            return
        partitions = _partitions(topics)
        if self._options.group is None:
            try:
                look_up(self.client, [each for each in partitions if each not in self._readings], self._options.where)
            except UnavailableError as error:
                # The next probe asks again; waiting here would hold up the partitions that can be read.
                logger.info("new partitions are not read yet: %s", error)
                return
        claims.announce([str(each) for each in partitions])
        if self._options.group is None:
            self._take(claims, partitions)
        elif any(name not in self._topics for name in topics):
            self.client.join(list(topics))
        self._topics = dict(topics)


def _partitions(topics: Mapping[str, Topic]) -> list[Partition]:
    return [Partition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
