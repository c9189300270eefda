"""The forecaster, how it is trained and how it is compared."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from infra.schema import MAX_HORIZON_STEPS, MAX_PATHS
from infra.settings.kinds import MAX_SEED, Horizon, Horizons, Names, Section


class ModelSettings(Section):
    """Where checkpoints are kept."""

    directory: Path = Path(".graphtide/models")


class ForecastSettings(Section):
    """How a forecast is rolled out."""

    horizon: Horizon = 168
    chunk_steps: int = Field(default=1024, ge=1, le=MAX_HORIZON_STEPS)
    paths: int = Field(default=0, ge=0, le=MAX_PATHS)
    seed: int = Field(default=0, ge=0, le=MAX_SEED)


class ForecasterSettings(Section):
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


class TrainingSettings(Section):
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


class GeneralSettings(Section):
    """How the general model is made: teachers, then a model that learns from them beside the data."""

    teachers: int = Field(default=2, ge=0, le=16)
    teacher_iterations: int = Field(default=2000, ge=1)
    iterations: int = Field(default=600, ge=1)
    budget_s: float = Field(default=86_400.0, gt=0)


class CompressionSettings(Section):
    """When a smaller form of a model may take its place."""

    tolerance: float = Field(default=0.005, ge=0, le=1)
    windows: int = Field(default=24, ge=1, le=10_000)


class BacktestSettings(Section):
    """How a model is compared with the floors."""

    horizons: Horizons = ()
    origins: int = Field(default=0, ge=0, le=10_000)
    floors: Names = ("simple",)
    workers: int = Field(default=0, ge=0, le=256)


class RaySettings(Section):
    """The Ray cluster of `--engine ray`."""

    address: str = ""
    workers: int = Field(default=0, ge=0, le=256)
    retries: int = Field(default=3, ge=0, le=1000)
    object_store_mb: int = Field(default=256, ge=80)


class RayServeSettings(Section):
    """The service on a Ray cluster: how many replicas there are, and when there are more."""

    min_replicas: int = Field(default=1, ge=1, le=1000)
    max_replicas: int = Field(default=4, ge=1, le=1000)
    requests: float = Field(default=8.0, gt=0)
    scale_out_s: float = Field(default=10.0, ge=0, le=3600)
    scale_in_s: float = Field(default=300.0, ge=0, le=86_400)


class DataSettings(Section):
    """Where the public data sets are found."""

    directory: Path = Path(".graphtide/data")
    cache: Path = Path(".graphtide/cache")
    mirror: str = ""
    timeout_s: float = Field(default=30.0, gt=0)

    def folders(self) -> list[Path]:
        """Return the folders that can hold data sets, the first that has one wins."""
        return [self.directory, self.cache]
