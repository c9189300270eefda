"""The settings: every section and key, its type, range and default. `infra.configuration` reads them.

`config.toml` says why each is there and holds the same defaults; a test holds the two together.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from infra.errors import UsageError
from infra.schema import MAX_HORIZON_STEPS
from infra.steps import parse_duration_us

ENV_PREFIX = "GRAPHTIDE_"
MAX_SEED = 2**32 - 1
_FORMAT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def _check_duration(text: str) -> str:
    try:
        parse_duration_us(text)
    except UsageError as error:
        raise ValueError("a duration: a whole number and a unit, such as 30s, 15m, 1h, 1d or 1w") from error
    return text


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Duration = Annotated[str, AfterValidator(_check_duration)]
Horizon = Annotated[int, Field(ge=1, le=MAX_HORIZON_STEPS)]
Horizons = Annotated[tuple[Horizon, ...], NoDecode, BeforeValidator(_split_commas), Field(min_length=1)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas), Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` where a number stands: Python would read it as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError
        return value


class StoreSettings(_Section):
    """Where snapshots are kept."""

    url: str = "sqlite:///.graphtide/store.db"


class IngestSettings(_Section):
    """How events become steps."""

    step: Duration = "1h"
    out_of_orderness_s: int = Field(default=0, ge=0)
    allowed_lateness_s: int = Field(default=0, ge=0)
    max_ahead_s: int = Field(default=3600, ge=0)
    idle_hold_s: int = Field(default=604_800, ge=0)
    dedup_window_s: int = Field(default=3600, ge=0)
    keep_edges_s: int = Field(default=0, ge=0)
    poll_interval_s: float = Field(default=1.0, gt=0)
    batch_rows: int = Field(default=50_000, ge=1)
    max_rows_in_memory: int = Field(default=2_000_000, ge=1000)
    max_empty_steps: int = Field(default=5_000_000, ge=1)
    keep_rejects: int = Field(default=1000, ge=0)

    @property
    def step_us(self) -> int:
        """Step size in microseconds."""
        return parse_duration_us(self.step)


class MetricSettings(_Section):
    """What a store accepts of one graph."""

    max_nodes: int = Field(default=10_000_000, ge=1, le=2**31 - 1)
    max_edges: int = Field(default=100_000_000, ge=1)


class ModelSettings(_Section):
    """Where checkpoints are kept."""

    directory: Path = Path(".graphtide/models")


class ForecastSettings(_Section):
    """How a forecast is rolled out."""

    horizon: Horizon = 168
    chunk_steps: int = Field(default=1024, ge=1, le=MAX_HORIZON_STEPS)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)


class ForecasterSettings(_Section):
    """The architecture of the forecaster; the fields of `models.forecaster.ForecasterConfig`."""

    d_model: int = Field(default=64, ge=8, le=4096)
    n_layers: int = Field(default=2, ge=1, le=64)
    d_state: int = Field(default=16, ge=1, le=1024)
    headdim: int = Field(default=32, ge=1, le=1024)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    reach_steps: int = Field(default=2048, ge=1, le=MAX_HORIZON_STEPS)

    @field_validator("headdim")
    @classmethod
    def _heads_fill_the_width(cls, headdim: int, info: ValidationInfo) -> int:
        inner = 2 * info.data.get("d_model", headdim)
        if inner % headdim:
            raise ValueError(f"a divisor of twice d_model, which is {inner}")
        return headdim


class TrainingSettings(_Section):
    """How a model is trained; the fields of `models.optimisation.TrainingConfig`."""

    budget_s: float = Field(default=150.0, gt=0)
    max_iterations: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    tuning_rate: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    validation_share: float = Field(default=0.12, gt=0, lt=0.5)
    validate_every: int = Field(default=25, ge=1)
    patience: int = Field(default=12, ge=1)
    batches_per_iteration: int = Field(default=3, ge=1)
    tokens_per_batch: int = Field(default=2048, ge=64)
    checkpoint_tokens: int = Field(default=8192, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: bool = False


class BacktestSettings(_Section):
    """How a model is compared with the floors."""

    horizons: Horizons = (1, 24, 168)
    origins: int = Field(default=24, ge=1, le=10_000)
    floors: Names = ("simple",)
    workers: int = Field(default=0, ge=0, le=256)


class DataSettings(_Section):
    """Where the public data sets are found."""

    directory: Path = Path(".graphtide/data")
    cache: Path = Path(".graphtide/cache")
    mirror: str = ""
    timeout_s: float = Field(default=30.0, gt=0)

    def folders(self) -> list[Path]:
        """Return the folders that can hold data sets, the first that has one wins."""
        return [self.directory, self.cache]


class ApiSettings(_Section):
    """The forecast service: where it listens, what it refuses, what it keeps."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65_535)
    workers: int = Field(default=1, ge=1, le=64)
    allow_open: bool = False
    ingestion: bool = False
    service_db: Path = Path(".graphtide/service.db")
    short_max_steps: Horizon = 168
    poll_interval_s: float = Field(default=1.0, gt=0, le=3600)
    max_live_graphs: int = Field(default=64, ge=1)
    queue_size: int = Field(default=64, ge=1)
    deadline_s: float = Field(default=5.0, gt=0)
    cache_lifetime_s: int = Field(default=3600, ge=0)
    cache_mb: int = Field(default=64, ge=0)
    max_page_rows: int = Field(default=10_000, ge=1)
    max_body_bytes: int = Field(default=65_536, ge=1024)
    rate_per_s: float = Field(default=0.0, ge=0)
    rate_burst: int = Field(default=100, ge=1)
    max_streams: int = Field(default=256, ge=1)
    max_streams_per_key: int = Field(default=64, ge=1)
    heartbeat_s: float = Field(default=10.0, gt=0)
    send_timeout_s: float = Field(default=20.0, gt=0)
    drain_s: int = Field(default=10, ge=0)
    require_gpu: bool = False


class JobSettings(_Section):
    """Long-range forecasts: who computes them, how many a caller may have, how long results stay."""

    workers: int = Field(default=1, ge=0, le=64)
    when_idle: bool = True
    chunk_steps: int = Field(default=512, ge=1, le=MAX_HORIZON_STEPS)
    max_active: int = Field(default=200, ge=1)
    max_active_per_key: int = Field(default=10, ge=1)
    lease_s: float = Field(default=10.0, ge=1)
    max_attempts: int = Field(default=5, ge=1)
    keep_s: int = Field(default=604_800, ge=60)


class SpoolSettings(_Section):
    """Events that are taken over HTTP, until ingestion has them."""

    path: Path = Path(".graphtide/spool.db")
    max_mb: int = Field(default=1024, ge=1)
    max_body_bytes: int = Field(default=8 << 20, ge=1024)
    max_records: int = Field(default=50_000, ge=1)
    keep_s: int = Field(default=86_400, ge=0)
    idle_timeout_s: float = Field(default=60.0, gt=0)


_Table = TypeVar("_Table")


def _check_table_names(tables: dict[str, _Table]) -> dict[str, _Table]:
    for name in tables:
        if _FORMAT_NAME.fullmatch(name) is None:
            raise ValueError(f"a name of a-z, 0-9, then also _ and -, at most 64 characters, in place of {name!r}")
    return tables


class TargetSettings(_Section):
    """A place that reports are delivered to; `forecasting.reports.targets` says what each kind needs."""

    kind: Literal["folder", "s3", "webhook", "email"]
    graphs: list[str] = ["*"]
    path: Path | None = None
    url: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_file: str = ""
    allow_private: bool = False
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    smtp_user: str = ""
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    sender: str = ""
    to: list[str] = []


class ScheduleSettings(_Section):
    """A report that is made by the calendar."""

    graph: str
    cron: str
    timezone: str = "UTC"
    horizon: Horizon | None = None
    deliver: list[str] = []
    missed: Literal["latest", "all", "skip"] = "latest"


class ReportSettings(_Section):
    """Reports: how they are made, kept, scheduled and delivered."""

    horizon: Horizon = 8760
    paths: int = Field(default=100, ge=20, le=1000)
    keep_s: int = Field(default=31_536_000, ge=3600)
    max_active: int = Field(default=100, ge=1)
    max_active_per_key: int = Field(default=10, ge=1)
    grace_s: int = Field(default=300, ge=0)
    timeout_s: float = Field(default=30.0, gt=0)
    retry_min_s: float = Field(default=5.0, gt=0)
    retry_max_s: float = Field(default=3600.0, gt=0)
    give_up_after_s: float = Field(default=86_400.0, ge=0)
    targets: Annotated[dict[str, TargetSettings], AfterValidator(_check_table_names)] = {}
    schedules: Annotated[dict[str, ScheduleSettings], AfterValidator(_check_table_names)] = {}


Place = str | list[str]
Matches = dict[str, str | bool | int | float | list[str | bool | int | float]]


class FormatSettings(_Section):
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
    where: Matches = {}
    unless: Matches = {}
    needs: list[str] = []


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


class KafkaSettings(_Section):
    """How Kafka is read; `stream.sources.kafka` says what each means."""

    bootstrap_servers: str = "localhost:9092"
    client: Literal["auto", "kafka-python", "confluent"] = "auto"
    start: Literal["earliest", "latest"] = "earliest"
    on_gap: Literal["stop", "skip"] = "stop"
    connect_timeout_s: float = Field(default=60.0, gt=0)
    idle_timeout_s: float = Field(default=60.0, ge=0)
    stall_timeout_s: float = Field(default=60.0, gt=0)
    password_file: str = ""
    options: Annotated[dict[str, OptionValue], BeforeValidator(_flat_options)] = {}


class DeadLetterSettings(_Section):
    """Where dead letters are delivered, beside the store."""

    target: str = Field(default="", pattern=r"^(|topic:[A-Za-z0-9._-]{1,249}|file:.+)$")
    drain_s: float = Field(default=30.0, ge=0)


class SchemaRegistrySettings(_Section):
    """Where the schemas of framed records are found."""

    url: str = ""
    user: str = ""
    password_file: str = ""
    timeout_s: float = Field(default=10.0, gt=0)


class LiveSettings(_Section):
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


class InfluxDBSettings(_Section):
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


class Settings(BaseSettings):
    """All settings; `Settings()` holds the defaults and reads nothing."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__")

    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    metrics: MetricSettings = MetricSettings()
    models: ModelSettings = ModelSettings()
    forecast: ForecastSettings = ForecastSettings()
    forecaster: ForecasterSettings = ForecasterSettings()
    training: TrainingSettings = TrainingSettings()
    backtest: BacktestSettings = BacktestSettings()
    data: DataSettings = DataSettings()
    kafka: KafkaSettings = KafkaSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    schema_registry: SchemaRegistrySettings = SchemaRegistrySettings()
    live: LiveSettings = LiveSettings()
    influxdb: InfluxDBSettings = InfluxDBSettings()
    api: ApiSettings = ApiSettings()
    jobs: JobSettings = JobSettings()
    reports: ReportSettings = ReportSettings()
    spool: SpoolSettings = SpoolSettings()
    formats: Annotated[dict[str, FormatSettings], AfterValidator(_check_table_names)] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is passed in and nothing else; `load_settings` adds file and environment."""
        return (init_settings,)
