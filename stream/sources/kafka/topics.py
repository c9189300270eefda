"""Which topics are read, and whether what the store knows of their partitions still fits what the brokers have."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from infra.errors import InputError, UsageError
from stream.sources.base import Position
from stream.sources.kafka.client import Bounds, KafkaClient, Partition, Topic, UnavailableError

PATTERN_MARK = "^"
_SHOWN_TOPICS = 10


class TopicChoice:
    """The topics that the user named.

    Args:
        wanted: names, and regular expressions that begin with `^` and have to match whole names.

    Raises:
        UsageError: none is named, or an expression is wrong.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        if not wanted:
            raise UsageError("no topic is named", fix="use --topics NAME,… or --topics '^expression'")
        self._names = [name for name in wanted if not name.startswith(PATTERN_MARK)]
        self._patterns = []
        for text in wanted:
            if text.startswith(PATTERN_MARK):
                try:
                    self._patterns.append(re.compile(text))
                except re.error as error:
                    raise UsageError(f"--topics: {text!r} is no regular expression: {error}", fix="mend it") from None
        self.label = ",".join(sorted(wanted))

    @property
    def names(self) -> list[str] | None:
        """The names where nothing but names is wanted, so that nothing else has to be asked for."""
        return None if self._patterns else self._names

    def of(self, topics: Mapping[str, Topic], where: str) -> dict[str, Topic]:
        """Return the wanted ones of all topics.

        Raises:
            InputError: one is not there, or none matches an expression.
        """
        for name in self._names:
            if name not in topics:
                raise missing_topic(name, topics, where)
        chosen = {
            name: topic
            for name, topic in topics.items()
            if name in self._names
            or (not name.startswith("__") and any(pattern.fullmatch(name) for pattern in self._patterns))
        }
        if not chosen:
            raise InputError(f"no topic of Kafka at {where} matches {self.label}", fix=f"there are: {_listed(topics)}")
        return dict(sorted(chosen.items()))


def missing_topic(name: str, topics: Mapping[str, Topic], where: str) -> InputError:
    """Return the error of a topic that is not there, with those of a similar name."""
    near = get_close_matches(name, topics, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(near)}?" if near else f"there are: {_listed(topics)}"
    return InputError(
        f"there is no topic {name!r} in Kafka at {where}",
        fix=f"{fix} (topics are hidden from users without rights)",
    )


def _listed(topics: Mapping[str, Topic]) -> str:
    names = sorted(name for name in topics if not name.startswith("__"))
    more = f" and {len(names) - _SHOWN_TOPICS} more" if len(names) > _SHOWN_TOPICS else ""
    return (", ".join(names[:_SHOWN_TOPICS]) or "none that this user may see") + more


def look_up(
    client: KafkaClient, partitions: Sequence[Partition], where: str
) -> tuple[dict[str, Topic], dict[Partition, Bounds]]:
    """Ask the brokers for the topics and the bounds of partitions; all are in the answer.

    Raises:
        UnavailableError: not all can be told now; new ones are not known to every broker at once.
        InputError: a topic is not there.
    """
    topics = client.topics(sorted({each.topic for each in partitions}))
    for partition in partitions:
        if partition.topic not in topics:
            raise missing_topic(partition.topic, topics, where)
    bounds = client.bounds(partitions) if partitions else {}
    for partition in partitions:
        if partition not in bounds:
            raise UnavailableError(f"topic {partition.topic!r}, partition {partition.number} is not known yet")
    return topics, bounds


def deleted_topic(partition: Partition, where: str) -> InputError:
    """Return the error of a topic that was deleted while it was read."""
    return InputError(
        f"topic {partition.topic!r} was deleted in Kafka at {where} while it was read",
        place=f"partition {partition.number}",
        fix="what was read of it is kept in the store; run again without the topic",
    )


def check_topic_id(partition: Partition, known: str, topic: Topic, where: str) -> None:
    """Make sure that a topic is the one whose offsets are known.

    Raises:
        InputError: it was deleted and made again.
    """
    if known and topic.id and known != topic.id:
        raise recreated(partition, where)


def recreated(partition: Partition, where: str) -> InputError:
    """Return the error of a topic that was deleted and made again under its name."""
    return InputError(
        f"topic {partition.topic!r} in Kafka at {where} was deleted and made again: what the store knows of it does not"
        " fit any more",
        place=f"partition {partition.number}",
        fix="nothing was read, so that nothing is counted twice; read the new topic under another --group, with another"
        " --graph or --store",
    )


def resume_offset(
    partition: Partition, position: Position | None, topic: Topic, bounds: Bounds, *, start: str, where: str
) -> int:
    """Return where reading goes on; before `bounds.first` where records were deleted before they were read.

    Args:
        partition: which.
        position: what the store has, None if the partition was never read.
        topic: as the brokers have it now.
        bounds: the offsets that the brokers have now.
        start: `earliest` or `latest`, for partitions that were never read.
        where: the cluster, for messages.

    Raises:
        InputError: the position belongs to another topic of the same name.
    """
    if position is None:
        return bounds.end if start == "latest" else bounds.first
    offset = int(position["offset"])
    check_topic_id(partition, str(position.get("topic_id", "")), topic, where)
    if offset > bounds.end:
        raise InputError(
            f"{partition} in Kafka at {where} ends at offset {bounds.end}, but was read up to {offset}:"
            " the topic was made again, or the brokers lost records",
            fix="nothing was read, so that nothing is counted twice; if the records are gone for good, read the topic"
            " under another --group, with another --graph or --store",
        )
    return offset


def lost_records(partition: Partition, offset: int, bounds: Bounds, where: str) -> InputError:
    """Return the error of records that the brokers deleted before they were read."""
    return InputError(
        f"{bounds.first - offset:,} records of {partition} are gone: it goes on at offset {offset},"
        f" and the brokers have nothing before {bounds.first} any more",
        place=f"Kafka at {where}",
        fix='to go on without them, counted as a gap, set [kafka] on_gap = "skip" (GRAPHTIDE_KAFKA__ON_GAP=skip);'
        " give the topic a longer retention",
    )
