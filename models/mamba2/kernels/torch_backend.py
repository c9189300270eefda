"""The `reference` backend: a stack run by the torch modules, on the CPU; it defines what is right."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import (
    RolloutCancelled,
    StackSizes,
    StackWeights,
    check_call,
    check_dense,
    check_precision,
)
from models.mamba2.kernels.dispatch import SelectiveScan
from models.mamba2.kernels.precision import round_weights
from models.mamba2.state import Mamba2State


class ReferenceBackend:
    """Plain torch; always there."""

    name = "reference"

    def unavailable(self) -> str | None:
        """Return None: torch is a dependency."""
        return None

    def wrong_setting(self) -> str | None:
        """Return None: it has no variable."""
        return None

    def pack(self, weights: StackWeights, precision: str = "fp32") -> "ReferenceStack":
        """See `contract.Backend.pack`."""
        check_precision(precision)
        weights.validate()
        return ReferenceStack(weights, precision)


class ReferenceStack:
    """A stack as torch modules; see `contract.PackedStack`.

    A series alone agrees with the same among others to float tolerance, not in its bits; running them one by one would
    give the bits at many times the time of a batch.

    Args:
        weights: validated weights.
        precision: what the matrices are rounded to; all arithmetic is float32.
        device: where to run; inputs and state lie there or on the CPU, and results where the inputs are.
        scan: what runs the selective scan, the plain torch reference by default.
    """

    def __init__(
        self,
        weights: StackWeights,
        precision: str,
        *,
        device: torch.device | str = "cpu",
        scan: SelectiveScan | None = None,
    ) -> None:
        self.sizes: StackSizes = weights.sizes
        self._device = torch.device(device)
        self._weights = _moved(round_weights(weights.detached(), precision), self._device)
        # A module is made in torch's default dtype on its default device, which may be any: the weights take its place.
        with torch.device("cpu"):
            self._core = Mamba2Core(weights.config, scan=scan)
        self._core.load_state_dict(self._weights.core, assign=True)
        self._core.requires_grad_(False)

    def prefill(self, inputs_BLF: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """See `contract.PackedStack.prefill`."""
        check_call(self.sizes, inputs_BLF, state, device=self._home(inputs_BLF))
        home = inputs_BLF.device
        with torch.no_grad(), self._in_float32():
            # Contiguous: how torch multiplies, and so the last bit, may follow the strides of a view.
            inputs_BLF, state = inputs_BLF.to(self._device).contiguous(), state.to(self._device)
            hidden_BLD, after = self._core(self._embed(inputs_BLF), state.map(Tensor.contiguous))
            return self._head(hidden_BLD).to(home), after.to(home).clone()

    def rollout(
        self,
        inputs_BTF: Tensor,
        state: Mamba2State,
        *,
        previous_BR: Tensor | None = None,
        chunk_steps: int = 1024,
        on_chunk: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """See `contract.PackedStack.rollout`."""
        home = self._home(inputs_BTF)
        check_call(self.sizes, inputs_BTF, state, device=home, previous_BR=previous_BR, chunk_steps=chunk_steps)
        batch, steps, _ = inputs_BTF.shape
        feedback_DR = self._weights.feedback_weight_DR
        inputs_BTF = inputs_BTF.detach().to(self._device)
        outputs_BTR = torch.empty(batch, steps, self.sizes.n_outputs, dtype=torch.float32, device=self._device)
        if previous_BR is None:
            previous_BR = torch.zeros(batch, self.sizes.n_outputs, dtype=torch.float32, device=self._device)
        last_BR = previous_BR.detach().to(self._device).contiguous()
        after = state.detach().to(self._device).map(Tensor.contiguous).clone()
        for first in range(0, steps, chunk_steps):
            if cancelled is not None and cancelled():
                raise RolloutCancelled
            done = min(first + chunk_steps, steps)
            with torch.no_grad(), self._in_float32():
                for step in range(first, done):
                    # Contiguous, see `prefill`; a step of a longer call has other strides.
                    x_BD = self._embed(inputs_BTF[:, step].contiguous())
                    if feedback_DR is not None:
                        x_BD = x_BD + functional.linear(last_BR, feedback_DR)
                    hidden_BD, after = self._core.step(x_BD, after)
                    last_BR = self._head(hidden_BD)
                    outputs_BTR[:, step] = last_BR
            if on_chunk is not None:
                on_chunk(done)
        return outputs_BTR.to(home), after.to(home)

    def _home(self, inputs: Tensor) -> torch.device:
        """Where inputs, state and results of a call lie: with the stack if the inputs do, else on the CPU."""
        check_dense("the inputs", inputs)
        return inputs.device if inputs.device.type == self._device.type else torch.device("cpu")

    def _in_float32(self) -> torch.autocast:
        """Return a context in which the caller's `torch.autocast` rounds nothing."""
        return torch.autocast(self._device.type, enabled=False)

    def _embed(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self._weights.input_weight_DF, self._weights.input_bias_D)

    def _head(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self._weights.head_weight_RD, self._weights.head_bias_R)


def _moved(weights: StackWeights, device: torch.device) -> StackWeights:
    feedback = weights.feedback_weight_DR
    return StackWeights(
        weights.config,
        {name: tensor.to(device, copy=True) for name, tensor in weights.core.items()},
        weights.input_weight_DF.to(device, copy=True),
        weights.input_bias_D.to(device, copy=True),
        weights.head_weight_RD.to(device, copy=True),
        weights.head_bias_R.to(device, copy=True),
        None if feedback is None else feedback.to(device, copy=True),
    )
