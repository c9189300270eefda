"""What of Kafka is read, and how."""

from dataclasses import dataclass

PROBE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """What is read and how.

    Attributes:
        where: the brokers, for messages.
        topics: names, and regular expressions that begin with `^`.
        group: shares the partitions with all processes of the group; None reads all of them here.
        follow: go on at the end and wait for more; else stop at the ends as they were at the start.
        close_at_end: the last batch of a bounded read closes all open steps.
        start: `earliest` or `latest`: where partitions begin that were never read.
        skip_lost: count records that were deleted before they were read as a gap, and go on; else stop.
        batch_records, batch_bytes: bounds of a batch, kept roughly.
        connect_timeout_s: how long to wait for a broker at the start.
        idle_timeout_s: see `Reading.idle`; 0 for never.
        stall_timeout_s: how long a partition with more to read may stand still.
        probe_every_s: how often the brokers are asked for the ends of the partitions.
    """

    where: str
    topics: tuple[str, ...]
    group: str | None = None
    follow: bool = False
    close_at_end: bool = False
    start: str = "earliest"
    skip_lost: bool = False
    batch_records: int = 50_000
    batch_bytes: int = 16 << 20
    connect_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    stall_timeout_s: float = 60.0
    probe_every_s: float = PROBE_EVERY_S
