"""Reports: how they are made, kept, scheduled and delivered."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from infra.settings.kinds import Horizon, Section, check_table_names


class TargetSettings(Section):
    """A place that reports are delivered to; `forecasting.reports.targets` says what each kind needs."""

    kind: Literal["folder", "s3", "webhook", "email"]
    graphs: list[str] = Field(default=["*"])
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
    to: list[str] = Field(default=[])


class ScheduleSettings(Section):
    """A report that is made by the calendar."""

    graph: str
    cron: str
    timezone: str = "UTC"
    horizon: Horizon | None = None
    deliver: list[str] = Field(default=[])
    missed: Literal["latest", "all", "skip"] = "latest"


class ReportSettings(Section):
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
    browser: str = ""
    print_timeout_s: float = Field(default=60.0, gt=0)
    targets: Annotated[dict[str, TargetSettings], AfterValidator(check_table_names)] = Field(default={})
    schedules: Annotated[dict[str, ScheduleSettings], AfterValidator(check_table_names)] = Field(default={})
