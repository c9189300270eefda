"""The settings: every section and key, its type, range and default. `infra.configuration` reads them.

`config.toml` says why each is there and holds the same defaults; a test holds the two together. The sections stand in
`stream`, `models`, `service`, `reports` and `alerts`; what they share in `kinds`.
"""

from typing import Annotated

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from infra.settings.alerts import AlertRuleSettings, AlertSettings
from infra.settings.kinds import MAX_SEED, check_table_names
from infra.settings.models import (
    BacktestSettings,
    CompressionSettings,
    DataSettings,
    ForecasterSettings,
    ForecastSettings,
    GeneralSettings,
    ModelSettings,
    RayServeSettings,
    RaySettings,
    TrainingSettings,
)
from infra.settings.reports import (
    ReportSettings,
    ScheduleSettings,
    TargetSettings,
)
from infra.settings.service import (
    ApiSettings,
    CacheSettings,
    JobSettings,
    TracingSettings,
)
from infra.settings.stream import (
    DeadLetterSettings,
    FormatSettings,
    InfluxDBSettings,
    IngestSettings,
    KafkaSettings,
    LiveSettings,
    MetricSettings,
    OptionValue,
    SchemaRegistrySettings,
    SpoolSettings,
    StoreSettings,
)

__all__ = [
    "ENV_PREFIX",
    "MAX_SEED",
    "AlertRuleSettings",
    "AlertSettings",
    "ApiSettings",
    "BacktestSettings",
    "CacheSettings",
    "CompressionSettings",
    "DataSettings",
    "DeadLetterSettings",
    "ForecastSettings",
    "ForecasterSettings",
    "FormatSettings",
    "GeneralSettings",
    "InfluxDBSettings",
    "IngestSettings",
    "JobSettings",
    "KafkaSettings",
    "LiveSettings",
    "MetricSettings",
    "ModelSettings",
    "OptionValue",
    "RayServeSettings",
    "RaySettings",
    "ReportSettings",
    "ScheduleSettings",
    "SchemaRegistrySettings",
    "Settings",
    "SpoolSettings",
    "StoreSettings",
    "TargetSettings",
    "TracingSettings",
    "TrainingSettings",
]

ENV_PREFIX = "GRAPHTIDE_"


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
    general: GeneralSettings = GeneralSettings()
    compression: CompressionSettings = CompressionSettings()
    backtest: BacktestSettings = BacktestSettings()
    ray: RaySettings = RaySettings()
    ray_serve: RayServeSettings = RayServeSettings()
    data: DataSettings = DataSettings()
    kafka: KafkaSettings = KafkaSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    schema_registry: SchemaRegistrySettings = SchemaRegistrySettings()
    live: LiveSettings = LiveSettings()
    influxdb: InfluxDBSettings = InfluxDBSettings()
    api: ApiSettings = ApiSettings()
    cache: CacheSettings = CacheSettings()
    tracing: TracingSettings = TracingSettings()
    jobs: JobSettings = JobSettings()
    reports: ReportSettings = ReportSettings()
    alerts: AlertSettings = AlertSettings()
    spool: SpoolSettings = SpoolSettings()
    formats: Annotated[dict[str, FormatSettings], AfterValidator(check_table_names)] = {}

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
