"""How events come in and where snapshots are kept."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from infra.settings.kinds import Duration, Section
from infra.steps import parse_duration_us


class StoreSettings(Section):
    """Where snapshots are kept."""

    url: str = "sqlite:///.graphtide/store.db"


GraphName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


# Longer than all event times; added to one, its microseconds still fit 64 bits.
EventSeconds = Annotated[int, Field(ge=0, le=10**12)]


class IngestSettings(Section):
    """How events become steps."""

    step: Duration = "1h"
    out_of_orderness_s: EventSeconds = 0
    allowed_lateness_s: EventSeconds = 0
    max_ahead_s: EventSeconds = 3600
    idle_hold_s: EventSeconds = 604_800
    dedup_window_s: EventSeconds = 3600
    keep_edges_s: EventSeconds = 0
    poll_interval_s: float = Field(default=1.0, gt=0)
    batch_rows: int = Field(default=50_000, ge=1)
    max_rows_in_memory: int = Field(default=2_000_000, ge=1000)
    max_empty_steps: int = Field(default=5_000_000, ge=1)
    keep_rejects: int = Field(default=1000, ge=0)
    split_graphs: list[GraphName] = Field(default=[])

    @property
    def step_us(self) -> int:
        """Step size in microseconds."""
        return parse_duration_us(self.step)


class MetricSettings(Section):
    """What a store accepts of one graph."""

    max_nodes: int = Field(default=10_000_000, ge=1, le=2**31 - 1)
    max_edges: int = Field(default=100_000_000, ge=1)


class SpoolSettings(Section):
    """Events that are taken over HTTP, until ingestion has them."""

    path: Path = Path(".graphtide/spool.db")
    max_mb: int = Field(default=1024, ge=1)
    max_body_bytes: int = Field(default=8 << 20, ge=1024)
    max_records: int = Field(default=50_000, ge=1)
    keep_s: int = Field(default=86_400, ge=0)
    idle_timeout_s: float = Field(default=60.0, gt=0)


Place = str | list[str]
Matches = dict[str, str | bool | int | float | list[str | bool | int | float]]


class FormatSettings(Section):
    """Where the fields of an event stand in records of a format of your own; `stream.decoders` reads it."""

    src: Place
    dst: Place
    ts: Place
    type: Place = ""
    graph: Place = ""
    weight: Place = ""
    id: Place = ""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    payload: Literal["json", "confluent"] = "json"
    where: Matches = Field(default={})
    unless: Matches = Field(default={})
    needs: list[str] = Field(default=[])


OptionValue = str | bool | int | float


def _flat_options(value: object) -> dict[str, OptionValue]:
    """Return Kafka's options by their dotted names: TOML reads `security.protocol = …` without quotes as a table."""
    if not isinstance(value, dict):
        raise ValueError('a table of options, such as { "security.protocol" = "SSL" }')
    flat: dict[str, OptionValue] = {}
    for name, given in value.items():
        if isinstance(given, dict):
            flat |= {f"{name}.{below}": option for below, option in _flat_options(given).items()}
        elif isinstance(given, str | bool | int | float):
            flat[str(name)] = given
        else:
            raise ValueError(f"a text, a number, true or false for {name}")
    return flat


class KafkaSettings(Section):
    """How Kafka is read; `stream.sources.kafka` says what each means."""

    bootstrap_servers: str = "localhost:9092"
    client: Literal["auto", "kafka-python", "confluent"] = "auto"
    start: Literal["earliest", "latest"] = "earliest"
    on_gap: Literal["stop", "skip"] = "stop"
    connect_timeout_s: float = Field(default=60.0, gt=0)
    idle_timeout_s: float = Field(default=60.0, ge=0)
    stall_timeout_s: float = Field(default=60.0, gt=0)
    password_file: str = ""
    options: Annotated[dict[str, OptionValue], BeforeValidator(_flat_options)] = Field(default={})


class DeadLetterSettings(Section):
    """Where dead letters are delivered, beside the store."""

    target: str = Field(default="", pattern=r"^(|topic:[A-Za-z0-9._-]{1,249}|file:.+)$")
    drain_s: float = Field(default=30.0, ge=0)


class SchemaRegistrySettings(Section):
    """Where the schemas of framed records are found."""

    url: str = ""
    user: str = ""
    password_file: str = ""
    timeout_s: float = Field(default=10.0, gt=0)


class LiveSettings(Section):
    """How streams of public services are read."""

    wikimedia_url: str = "https://stream.wikimedia.org/v2/stream/recentchange"
    jetstream_url: str = "wss://jetstream2.us-east.bsky.network/subscribe"
    mastodon_url: str = "https://mastodon.social/api/v1/streaming/public"
    mastodon_token_file: str = ""
    user_agent: str = Field(default="graphtide", pattern=r"^[ -~]+$")
    flush_interval_s: float = Field(default=1.0, gt=0)
    batch_messages: int = Field(default=5000, ge=1)
    connect_timeout_s: float = Field(default=10.0, gt=0)
    read_timeout_s: float = Field(default=60.0, gt=0)
    max_message_bytes: int = Field(default=8 << 20, ge=1024)
    backoff_min_s: float = Field(default=0.5, gt=0)
    backoff_max_s: float = Field(default=60.0, gt=0)
    give_up_after_s: float = Field(default=3600.0, ge=0)
    overlap_s: float = Field(default=2.0, ge=0)
    remember_messages: int = Field(default=2000, ge=1, le=100_000)


class InfluxDBSettings(Section):
    """The InfluxDB that snapshots are projected to, and how any InfluxDB is talked to."""

    url: str = ""
    org: str = ""
    bucket: str = ""
    token: SecretStr = SecretStr("")
    token_file: str = ""
    timeout_s: float = Field(default=10.0, gt=0)
    batch_points: int = Field(default=5000, ge=1, le=100_000)
    max_wait_s: float = Field(default=30.0, gt=0)
    drain_s: float = Field(default=60.0, ge=0)
    attempts: int = Field(default=3, ge=1, le=100)
    retry_min_s: float = Field(default=4.0, gt=0)
    retry_max_s: float = Field(default=10.0, gt=0)
    failures: int = Field(default=3, ge=1)
    pause_s: float = Field(default=5.0, gt=0)
