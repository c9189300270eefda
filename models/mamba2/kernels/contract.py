"""What every backend of a whole Mamba2 stack takes, gives and refuses.

A stack embeds known inputs, runs a `Mamba2Core` and reads raw outputs off it; with h_t the output of the core:

    x_t = input_weight u_t + input_bias + feedback_weight y_{t-1}        y_t = head_weight h_t + head_bias

The feedback is there in closed loops only. `models.mamba2.kernels.registry` chooses the backend;
`models.mamba2.kernels.torch_backend` defines what is right.

Shape suffixes: B batch, L and T steps, F known inputs, R outputs, D model width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.state import LayerState, Mamba2State, Mamba2StateError

PRECISIONS = ("fp32", "bf16", "int8")


class KernelInputError(ValueError):
    """Weights, inputs or a state that no kernel may see; the message names the tensor and what is wrong with it."""


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and is unknown or cannot run here; the message says why."""


class RolloutCancelled(Exception):  # noqa: N818 - an answer to a wish, not an error
    """The caller cancelled a rollout; nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class StackSizes:
    """What a packed stack must know to check a call.

    Attributes:
        config: sizes of the core.
        n_inputs: known inputs F a step, >= 0.
        n_outputs: raw outputs R a step, >= 1.
        feeds_back: whether a rollout is a closed loop.
    """

    config: Mamba2Config
    n_inputs: int
    n_outputs: int
    feeds_back: bool


@dataclass(frozen=True, slots=True, eq=False)
class StackWeights:
    """The weights of a stack, float32 tensors on the CPU.

    Attributes:
        config: sizes of the core.
        core: the `state_dict` of a `Mamba2Core`, named and laid out as in `mamba_ssm`.
        input_weight_DF, input_bias_D: embedding of the known inputs; F may be 0.
        head_weight_RD, head_bias_R: raw outputs from the output of the core.
        feedback_weight_DR: embedding of the last outputs; None for an open loop.
    """

    config: Mamba2Config
    core: dict[str, Tensor]
    input_weight_DF: Tensor
    input_bias_D: Tensor
    head_weight_RD: Tensor
    head_bias_R: Tensor
    feedback_weight_DR: Tensor | None = None

    @classmethod
    def from_modules(
        cls, embed: nn.Linear, core: Mamba2Core, head: nn.Linear, feedback_weight_DR: Tensor | None = None
    ) -> Self:
        """Return a copy of the weights of torch modules, in float32 on the CPU."""

        def copied(tensor: Tensor) -> Tensor:
            return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()

        return cls(
            config=core.config,
            core={name: copied(tensor) for name, tensor in core.state_dict().items()},
            input_weight_DF=copied(embed.weight),
            input_bias_D=copied(embed.bias),
            head_weight_RD=copied(head.weight),
            head_bias_R=copied(head.bias),
            feedback_weight_DR=None if feedback_weight_DR is None else copied(feedback_weight_DR),
        )

    def detached(self) -> Self:
        """Return the same weights cut off from the graph of their gradients; memory is shared."""
        feedback = self.feedback_weight_DR
        return replace(
            self,
            core={name: tensor.detach() for name, tensor in self.core.items()},
            input_weight_DF=self.input_weight_DF.detach(),
            input_bias_D=self.input_bias_D.detach(),
            head_weight_RD=self.head_weight_RD.detach(),
            head_bias_R=self.head_bias_R.detach(),
            feedback_weight_DR=None if feedback is None else feedback.detach(),
        )

    @property
    def sizes(self) -> StackSizes:
        """The sizes that calls are checked against."""
        return StackSizes(
            self.config,
            self.input_weight_DF.shape[1],
            self.head_weight_RD.shape[0],
            self.feedback_weight_DR is not None,
        )

    def validate(self) -> None:
        """Make sure that a kernel can trust these weights.

        Raises:
            KernelInputError: a tensor is missing, unknown, of another kind, shape, dtype or device, or not finite; or a
                decay rate, which is exp(A_log), is.
        """
        expected = core_shapes(self.config)
        if odd := sorted(expected.keys() ^ self.core.keys()):
            lack = "missing from" if odd[0] in expected else "unknown in"
            raise KernelInputError(f"{odd[0]} is {lack} the weights of a core of {self.config.n_layers} layers")
        width = self.config.d_model
        for name in ("input_weight_DF", "head_weight_RD"):
            check_dense(name, getattr(self, name))
            if getattr(self, name).ndim != 2:
                raise KernelInputError(f"{name} has shape {tuple(getattr(self, name).shape)}, not two axes")
        inputs, outputs = self.input_weight_DF.shape[1], self.head_weight_RD.shape[0]
        if outputs < 1:
            raise KernelInputError("head_weight_RD has no row: a stack needs at least one output")
        tensors = {name: (self.core[name], shape) for name, shape in expected.items()}
        tensors["input_weight_DF"] = (self.input_weight_DF, (width, inputs))
        tensors["input_bias_D"] = (self.input_bias_D, (width,))
        tensors["head_weight_RD"] = (self.head_weight_RD, (outputs, width))
        tensors["head_bias_R"] = (self.head_bias_R, (outputs,))
        if self.feedback_weight_DR is not None:
            tensors["feedback_weight_DR"] = (self.feedback_weight_DR, (width, outputs))
        for name, (tensor, shape) in tensors.items():
            _check_tensor(name, tensor, shape, torch.device("cpu"))
        for name, tensor in self.core.items():
            if name.endswith(".A_log") and not bool(torch.isfinite(torch.exp(tensor.detach())).all()):
                raise KernelInputError(
                    f"{name} holds {tensor.max():.6g}, and its exponential, the rate of decay, is more than a float32 "
                    "can hold; keep A_log below 88.7"
                )


class PackedStack(Protocol):
    """Weights in the layout and precision of a backend; immutable, so that threads can share it.

    States are values: no call changes the one it is given. A series gets the same bits alone or among others from `cpu`
    and `cuda`; from `reference` and `mamba_ssm` to float tolerance, as torch picks the order of the sums in a matrix
    product by the number of its rows.

    What torch takes for a default (dtype, device) and `torch.autocast` change no result.
    """

    @property
    def sizes(self) -> StackSizes:
        """The sizes that calls are checked against."""
        ...

    def prefill(self, inputs_BLF: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """Run over known inputs without feedback; any L >= 0, any B >= 1.

        A closed loop is prefilled with what it will feed back by packing a second, open stack whose inputs are the
        known inputs and the observed outputs.

        Returns:
            Raw outputs [B, L, R] and the state after the last step; however the steps are cut into calls, the same to
            float tolerance.

        Raises:
            KernelInputError: what should be a tensor or a state is none; a shape, layout, dtype or device is wrong, a
                value is not finite, the state is another model's.
        """
        ...

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
        """Run T >= 0 steps one by one, each fed the outputs of the one before if the loop is closed.

        Args:
            inputs_BTF: known inputs.
            state: the state before the first step.
            previous_BR: what a closed loop feeds to the first step; zeros if None.
            chunk_steps: steps between two questions to the caller; the numbers do not depend on it.
            on_chunk: called after each chunk with the number of steps done so far.
            cancelled: asked before each chunk; True ends the rollout.

        Returns:
            Raw outputs [B, T, R] and the state after the last step.

        Raises:
            KernelInputError: as in `prefill`; also a `previous_BR` for an open loop, or `chunk_steps` that is no
                integer of at least 1.
            RolloutCancelled: the caller cancelled.
        """
        ...


class Backend(Protocol):
    """A way to run stacks."""

    @property
    def name(self) -> str:
        """The name by which GRAPHTIDE_BACKEND forces it."""
        ...

    def unavailable(self) -> str | None:
        """Return why it cannot be used here and what would help, or None if it can."""
        ...

    def wrong_setting(self) -> str | None:
        """Return which variable of its own is set to what it cannot use, and what would help, or None.

        Then no other backend takes its place unasked: who set the variable would not learn that it does nothing.
        """
        ...

    def pack(self, weights: StackWeights, precision: str = "fp32") -> PackedStack:
        """Lay the weights out for this backend; `precision` as in `models.mamba2.kernels.precision`.

        Raises:
            KernelInputError: the weights fail `StackWeights.validate`, or the precision is unknown.
            BackendUnavailableError: it cannot be used here.
        """
        ...


def check_precision(precision: str) -> None:
    """Make sure that `precision` is one of `PRECISIONS`.

    Raises:
        KernelInputError: it is not.
    """
    if precision not in PRECISIONS:
        raise KernelInputError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")


def check_call(
    sizes: StackSizes,
    inputs_BLF: Tensor,
    state: Mamba2State,
    *,
    device: torch.device | str = "cpu",
    previous_BR: Tensor | None = None,
    chunk_steps: int = 1,
) -> None:
    """Make sure that the arguments of `prefill` or `rollout` fit, before any kernel runs.

    Raises:
        KernelInputError: as said there.
    """
    device = torch.device(device)
    check_dense("the inputs", inputs_BLF)
    if inputs_BLF.ndim != 3:
        raise KernelInputError(f"the inputs have shape {tuple(inputs_BLF.shape)}, not [batch, steps, features]")
    batch, steps, _ = inputs_BLF.shape
    if batch < 1:
        raise KernelInputError("the inputs hold no series: the batch is empty")
    _check_tensor("the inputs", inputs_BLF, (batch, steps, sizes.n_inputs), device)
    _check_state_kind(state)
    try:
        state.check(sizes.config, batch)
    except Mamba2StateError as error:
        raise KernelInputError(str(error)) from error
    for index, layer in enumerate(state.layers):
        for name, tensor in (("conv", layer.conv_BCK), ("ssm", layer.ssm_BHPN)):
            _check_tensor(f"the {name} state of layer {index}", tensor, tuple(tensor.shape), device)
    if previous_BR is not None:
        if not sizes.feeds_back:
            raise KernelInputError("previous outputs were given to an open loop, which feeds nothing back")
        _check_tensor("the previous outputs", previous_BR, (batch, sizes.n_outputs), device)
    # Asked of the caller's code, which nothing holds to the annotation.
    if not isinstance(chunk_steps, int) or chunk_steps < 1:
        raise KernelInputError(f"chunk_steps must be an integer of at least 1, not {chunk_steps!r}")


def _check_state_kind(state: object) -> None:
    if not isinstance(state, Mamba2State):
        raise KernelInputError(
            f"the state is {_kind(state)}, not a Mamba2State; Mamba2State.zeros(config, batch) is that before any step"
        )
    for index, layer in enumerate(state.layers):
        if not isinstance(layer, LayerState):
            raise KernelInputError(f"layer {index} of the state is {_kind(layer)}, not a LayerState")
        check_dense(f"the conv state of layer {index}", layer.conv_BCK)
        check_dense(f"the ssm state of layer {index}", layer.ssm_BHPN)


def check_dense(name: str, tensor: object) -> None:
    """Make sure that it is a tensor whose shape, device and values can be asked for.

    Raises:
        KernelInputError: it is not.
    """
    if not isinstance(tensor, Tensor):
        raise KernelInputError(f"{name} must be a torch tensor, not {_kind(tensor)}; torch.as_tensor makes one")
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        fix = "to_padded_tensor" if tensor.is_nested else "to_dense"
        raise KernelInputError(f"{name} must be a dense tensor, not {kind}; {fix}() makes one")


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    check_dense(name, tensor)
    if tuple(tensor.shape) != shape:
        raise KernelInputError(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
    if tensor.dtype != torch.float32:
        raise KernelInputError(f"{name} is {tensor.dtype}, not float32")
    if tensor.device.type != device.type or (device.index is not None and tensor.device.index != device.index):
        raise KernelInputError(f"{name} is on {tensor.device}, not on {device}")
    tensor = tensor.detach()
    # A sum is quick, and finite only where all are; else it may have overflowed, which is no fault.
    if not math.isfinite(float(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        raise KernelInputError(f"{name} holds values that are not finite")


def core_shapes(config: Mamba2Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a `Mamba2Core`, by name."""
    block = {
        "norm.weight": (config.d_model,),
        "mixer.dt_bias": (config.n_heads,),
        "mixer.A_log": (config.n_heads,),
        "mixer.D": (config.n_heads,),
        "mixer.in_proj.weight": (config.in_proj_dim, config.d_model),
        "mixer.conv1d.weight": (config.conv_dim, 1, config.d_conv),
        "mixer.conv1d.bias": (config.conv_dim,),
        "mixer.norm.weight": (config.d_inner,),
        "mixer.out_proj.weight": (config.d_model, config.d_inner),
    }
    shapes = {f"layers.{index}.{name}": shape for index in range(config.n_layers) for name, shape in block.items()}
    return {**shapes, "norm_f.weight": (config.d_model,)}
