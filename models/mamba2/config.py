"""The shape of a Mamba2 stack, validated where it is made."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self


class Mamba2ConfigError(ValueError):
    """A configuration that no Mamba2 stack can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2Config:
    """Sizes and constants of a Mamba2 stack, named as in `mamba_ssm`.

    Attributes:
        d_model: width of the residual stream.
        n_layers: number of residual blocks.
        d_state: size N of the state of one channel.
        headdim: channels P of one head; divides `expand * d_model`.
        expand: inner width as a multiple of `d_model`.
        d_conv: taps of the causal depthwise convolution.
        n_groups: groups of heads that share B and C; divides the number of heads.
        chunk_size: longest chunk of the scan; changes speed, never the result beyond float tolerance.
        dt_min, dt_max: range in which the step sizes start, log-uniform.
        dt_init_floor: smallest step size at the start.
        dt_limit: range to which step sizes are clamped after the softplus.
        norm_eps: epsilon of every RMSNorm.

    Raises:
        Mamba2ConfigError: a value is out of range, or sizes do not divide each other.
    """

    d_model: int
    n_layers: int
    d_state: int = 64
    headdim: int = 64
    expand: int = 2
    d_conv: int = 4
    n_groups: int = 1
    chunk_size: int = 64
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    dt_limit: tuple[float, float] = (0.0, math.inf)
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "d_state", "headdim", "expand", "n_groups", "chunk_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        _require(self.d_conv >= 2, f"d_conv must be at least 2, not {self.d_conv}")
        _require(
            self.d_inner % self.headdim == 0,
            f"headdim {self.headdim} does not divide expand * d_model = {self.d_inner}",
        )
        _require(self.n_heads % self.n_groups == 0, f"n_groups {self.n_groups} does not divide {self.n_heads} heads")
        _require(
            0 < self.dt_min <= self.dt_max < math.inf, f"need 0 < dt_min <= dt_max, not {self.dt_min}, {self.dt_max}"
        )
        _require(self.dt_init_floor > 0, f"dt_init_floor must be positive, not {self.dt_init_floor}")
        low, high = self.dt_limit
        _require(0 <= low < high, f"dt_limit must be a rising pair of numbers >= 0, not {self.dt_limit}")
        _require(self.norm_eps > 0, f"norm_eps must be positive, not {self.norm_eps}")

    @property
    def d_inner(self) -> int:
        """Channels inside a block."""
        return self.expand * self.d_model

    @property
    def n_heads(self) -> int:
        """Heads of a block."""
        return self.d_inner // self.headdim

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.d_inner + 2 * self.n_groups * self.d_state

    @property
    def in_proj_dim(self) -> int:
        """Outputs of `in_proj`: z, x, B, C and dt, in this order."""
        return self.d_inner + self.conv_dim + self.n_heads

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; an infinite limit becomes None."""
        fields = asdict(self)
        fields["dt_limit"] = [bound if math.isfinite(bound) else None for bound in self.dt_limit]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Read back what `to_dict` wrote.

        Raises:
            Mamba2ConfigError: a field is unknown, missing, of another type or out of range.
        """
        try:
            low, high = fields.get("dt_limit", (0.0, None))
            return cls(**{**fields, "dt_limit": (float(low), math.inf if high is None else float(high))})
        except Mamba2ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise Mamba2ConfigError(f"not a Mamba2 configuration: {error}") from error


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise Mamba2ConfigError(message)
