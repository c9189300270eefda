"""The forecast service and its workers."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from infra.errors import UsageError
from infra.schema import MAX_HORIZON_STEPS
from infra.settings.kinds import POSTGRES_SCHEMES, Horizon, Section


def _path_or_url(value: object) -> object:
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith(POSTGRES_SCHEMES)):
        return value
    if not isinstance(value, str) or "://" in value:
        # No ValueError: its message would repeat what may hold a password.
        raise UsageError(
            "[api] service_db is neither a path nor the address of a PostgreSQL database",
            place="[api] service_db",
            fix="give the path of a file, or postgresql://user@host:5432/database",
        )
    return Path(value)


# A path, or as text the URL of a PostgreSQL database.
FileOrDatabase = Annotated[Path | str, BeforeValidator(_path_or_url)]


class ApiSettings(Section):
    """The forecast service: where it listens, what it refuses, what it keeps."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65_535)
    workers: int = Field(default=1, ge=1, le=64)
    allow_open: bool = False
    ingestion: bool = False
    service_db: FileOrDatabase = Path(".graphtide/service.db")
    short_max_steps: Horizon = 168
    poll_interval_s: float = Field(default=1.0, gt=0, le=3600)
    max_live_graphs: int = Field(default=64, ge=1)
    queue_size: int = Field(default=64, ge=1)
    deadline_s: float = Field(default=5.0, gt=0)
    cache_lifetime_s: int = Field(default=3600, ge=0)
    cache_mb: int = Field(default=64, ge=0)
    max_page_rows: int = Field(default=10_000, ge=1)
    max_path_values: int = Field(default=10_000_000, ge=1)
    max_body_bytes: int = Field(default=65_536, ge=1024)
    rate_per_s: float = Field(default=0.0, ge=0)
    rate_burst: int = Field(default=100, ge=1)
    max_streams: int = Field(default=256, ge=1)
    max_streams_per_key: int = Field(default=64, ge=1)
    heartbeat_s: float = Field(default=10.0, gt=0)
    send_timeout_s: float = Field(default=20.0, gt=0)
    drain_s: int = Field(default=10, ge=0)
    require_gpu: bool = False


class CacheSettings(Section):
    """The Redis in which serving processes share their answers."""

    redis_url: str = ""
    redis_password: SecretStr = SecretStr("")
    redis_password_file: str = ""
    timeout_s: float = Field(default=0.1, gt=0, le=60)
    failures: int = Field(default=3, ge=1)
    pause_s: float = Field(default=5.0, gt=0)


class TracingSettings(Section):
    """Traces of requests and jobs, for a receiver of OpenTelemetry."""

    endpoint: str = ""
    service_name: str = Field(default="graphtide", min_length=1)
    sample_share: float = Field(default=1.0, ge=0, le=1)
    timeout_s: float = Field(default=10.0, gt=0)


class JobSettings(Section):
    """Long-range forecasts: who computes them, how many a caller may have, how long results stay."""

    workers: int = Field(default=1, ge=0, le=64)
    when_idle: bool = True
    chunk_steps: int = Field(default=512, ge=1, le=MAX_HORIZON_STEPS)
    max_active: int = Field(default=200, ge=1)
    max_active_per_key: int = Field(default=10, ge=1)
    lease_s: float = Field(default=10.0, ge=1)
    max_attempts: int = Field(default=5, ge=1)
    keep_s: int = Field(default=604_800, ge=60)
