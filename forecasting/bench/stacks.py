"""The stacks that are measured: one set of weights for every system, made from a seed."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import StackWeights

# Those of `models.forecaster.ForecasterNet`; a test holds them together. Written out, because the benchmark runs
# without what the forecaster imports.
FORECASTER_INPUTS = 276
FORECASTER_OUTPUTS = 384


@dataclass(frozen=True, slots=True)
class StackSpec:
    """What is run.

    Attributes:
        d_model, n_layers: sizes of the core; the others are those of the published figures.
        batch: series at once.
        head: "scalar" feeds one output back; "forecaster" has the inputs and outputs of the real one, which feeds
            nothing back; "quantiles" has the same and feeds all outputs back.
        device: "cpu" or "cuda".
        chunk_size: of the scan of a whole sequence.
    """

    d_model: int = 128
    n_layers: int = 4
    batch: int = 1
    head: str = "scalar"
    device: str = "cpu"
    chunk_size: int = 64

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read back what `as_json` wrote."""
        return cls(**fields)

    @property
    def config(self) -> Mamba2Config:
        """The configuration of the core."""
        return Mamba2Config(
            d_model=self.d_model, n_layers=self.n_layers, d_state=64, headdim=64, chunk_size=self.chunk_size
        )

    @property
    def n_inputs(self) -> int:
        """Known inputs a step."""
        return 0 if self.head == "scalar" else FORECASTER_INPUTS

    @property
    def n_outputs(self) -> int:
        """Outputs a step."""
        return 1 if self.head == "scalar" else FORECASTER_OUTPUTS

    def weights(self) -> StackWeights:
        """Return the weights, the same on every call and in every process."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int, scale: float) -> Tensor:
            return scale * torch.randn(*shape, generator=generator)

        core = Mamba2Core(self.config, seed=0).state_dict()
        scale = max(self.n_inputs, 1) ** -0.5
        feeds_back = self.head != "forecaster"
        return StackWeights(
            config=self.config,
            core={name: tensor.detach() for name, tensor in core.items()},
            input_weight_DF=normal(self.d_model, self.n_inputs, scale=scale),
            input_bias_D=normal(self.d_model, scale=0.5),
            head_weight_RD=normal(self.n_outputs, self.d_model, scale=self.d_model**-0.5),
            head_bias_R=torch.zeros(self.n_outputs),
            feedback_weight_DR=(
                normal(self.d_model, self.n_outputs, scale=0.5 * self.n_outputs**-0.5) if feeds_back else None
            ),
        )

    def inputs(self, steps: int) -> Tensor:
        """Return known inputs [B, steps, F]; the first steps are the same for every number of steps."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(steps, self.batch, self.n_inputs, generator=generator).transpose(0, 1).contiguous()
