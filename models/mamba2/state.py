"""What a Mamba2 stack carries from step to step, as a value: every method returns a new state.

Shape suffixes: B batch, C convolution channels, K taps of the convolution less one, H heads, P head width, N states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from models.mamba2.config import Mamba2Config

STATE_DTYPES = (torch.float32, torch.float64)


class Mamba2StateError(ValueError):
    """A state that does not fit the model it is given to."""


@dataclass(frozen=True, slots=True)
class LayerState:
    """The state of one layer.

    Attributes:
        conv_BCK: the last `d_conv - 1` inputs of the convolution, oldest first.
        ssm_BHPN: the state-space state, float32 (float64 in a float64 model) whatever the precision of the layer.
    """

    conv_BCK: Tensor
    ssm_BHPN: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "LayerState":
        """Return the state with `function` applied to both tensors."""
        return LayerState(function(self.conv_BCK), function(self.ssm_BHPN))


@dataclass(frozen=True, slots=True)
class Mamba2State:
    """The states of all layers of a stack."""

    layers: tuple[LayerState, ...]

    @classmethod
    def zeros(
        cls,
        config: Mamba2Config,
        batch: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Self:
        """Return the state before the first step of `batch` sequences."""
        shapes = _layer_shapes(config, batch)
        return cls(
            tuple(
                LayerState(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes.values()))
                for _ in range(config.n_layers)
            )
        )

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.layers[0].ssm_BHPN.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Mamba2State":
        """Return the state with `function` applied to every tensor."""
        return Mamba2State(tuple(layer.map(function) for layer in self.layers))

    def detach(self) -> "Mamba2State":
        """Return the state cut off from the graph of its gradients; memory is shared."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> "Mamba2State":
        """Return a copy in memory of its own; gradients flow through."""
        return self.map(torch.clone)

    def to(self, device: torch.device | str) -> "Mamba2State":
        """Return the state on `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int] | Tensor) -> "Mamba2State":
        """Return the sequences `rows`, in that order, as a copy.

        Raises:
            IndexError: a row is not there.
        """
        index = torch.as_tensor(rows, dtype=torch.int64)
        return self.map(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    def repeat(self, count: int) -> "Mamba2State":
        """Return every sequence `count` times in a row: 0, 0, 1, 1 for two sequences and a count of 2."""
        return self.map(lambda tensor: tensor.repeat_interleave(count, dim=0))

    @classmethod
    def stack(cls, states: Sequence["Mamba2State"]) -> Self:
        """Return the sequences of all `states`, one after the other, as one batch.

        Raises:
            Mamba2StateError: there is no state, or the states belong to different configurations.
        """
        if not states:
            raise Mamba2StateError("no states to stack")
        if any(_trailing_shapes(state) != _trailing_shapes(states[0]) for state in states):
            raise Mamba2StateError("states of different configurations cannot be stacked")
        return cls(
            tuple(
                LayerState(
                    torch.cat([layer.conv_BCK for layer in layers]), torch.cat([layer.ssm_BHPN for layer in layers])
                )
                for layers in zip(*(state.layers for state in states), strict=True)
            )
        )

    def check(self, config: Mamba2Config, batch: int | None = None) -> None:
        """Make sure that the state fits a stack of `config` and, if given, `batch` sequences.

        Raises:
            Mamba2StateError: layers, shapes or dtypes differ; the message names the first that does.
        """
        if len(self.layers) != config.n_layers:
            raise Mamba2StateError(f"the state has {len(self.layers)} layers, the model {config.n_layers}")
        expected = _layer_shapes(config, self.batch if batch is None else batch)
        for index, layer in enumerate(self.layers):
            for name, tensor in (("conv", layer.conv_BCK), ("ssm", layer.ssm_BHPN)):
                if tuple(tensor.shape) != expected[name]:
                    raise Mamba2StateError(
                        f"the {name} state of layer {index} has shape {tuple(tensor.shape)}, "
                        f"the model needs {expected[name]}"
                    )
                if tensor.dtype not in STATE_DTYPES:
                    raise Mamba2StateError(f"the {name} state of layer {index} is {tensor.dtype}, not float32")

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name (`layers.0.conv`, `layers.0.ssm`, …), detached, contiguous, on the CPU."""
        tensors: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            tensors[f"layers.{index}.conv"] = layer.conv_BCK.detach().cpu().contiguous()
            tensors[f"layers.{index}.ssm"] = layer.ssm_BHPN.detach().cpu().contiguous()
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Mamba2Config) -> Self:
        """Read back what `to_tensors` wrote for a stack of `config`.

        Raises:
            Mamba2StateError: a tensor is missing, unknown, of another shape or dtype, or holds a value that is not
                finite.
        """
        names = {f"layers.{index}.{part}" for index in range(config.n_layers) for part in ("conv", "ssm")}
        if names != set(tensors):
            odd = sorted(names ^ set(tensors))
            raise Mamba2StateError(f"the tensors are not those of {config.n_layers} layers: {', '.join(odd[:4])}")
        state = cls(
            tuple(
                LayerState(tensors[f"layers.{index}.conv"], tensors[f"layers.{index}.ssm"])
                for index in range(config.n_layers)
            )
        )
        if state.layers[0].ssm_BHPN.ndim == 0:
            raise Mamba2StateError("the ssm state of layer 0 is a single number")
        state.check(config)
        for name in sorted(names):
            if not bool(torch.isfinite(tensors[name]).all()):
                raise Mamba2StateError(f"{name} holds values that are not finite")
        return state


def _layer_shapes(config: Mamba2Config, batch: int) -> dict[str, tuple[int, ...]]:
    return {
        "conv": (batch, config.conv_dim, config.d_conv - 1),
        "ssm": (batch, config.n_heads, config.headdim, config.d_state),
    }


def _trailing_shapes(state: Mamba2State) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape[1:]) for layer in state.layers for tensor in (layer.conv_BCK, layer.ssm_BHPN)]
