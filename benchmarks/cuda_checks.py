"""Whether the CUDA kernels are right on this GPU: comparisons with the torch reference, for cuda_first_run.py."""

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import PRECISIONS, RolloutCancelled, StackWeights
from models.mamba2.kernels.cuda.device import CudaDevice, Device
from models.mamba2.kernels.cuda.packing import load_state
from models.mamba2.kernels.cuda.plan import KernelSizes
from models.mamba2.kernels.cuda.stack import CudaStack
from models.mamba2.kernels.torch_backend import ReferenceBackend, ReferenceStack
from models.mamba2.state import Mamba2State

BENCHMARKED = Mamba2Config(d_model=128, n_layers=4)
CHECKED = {
    "d128l4": BENCHMARKED,
    "d64l2": Mamba2Config(d_model=64, n_layers=2),
    "odd": Mamba2Config(d_model=21, n_layers=3, d_state=13, headdim=7, d_conv=3, n_groups=3),
    "grouped": Mamba2Config(d_model=48, n_layers=2, d_state=16, headdim=16, n_groups=2, dt_limit=(0.002, 0.08)),
    "d256l6": Mamba2Config(d_model=256, n_layers=6),
}
# bf16 and int8 are compared with the reference at the same rounded weights, so all are held to what fp32 promises.
TOLERANCE = 1e-5

Row = dict[str, Any]


def make_weights(config: Mamba2Config, n_inputs: int, n_outputs: int, *, closed: bool) -> StackWeights:
    """Random weights of a stable loop."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    width = config.d_model
    return StackWeights(
        config=config,
        core={name: tensor.detach().clone() for name, tensor in Mamba2Core(config).state_dict().items()},
        input_weight_DF=normal(width, n_inputs, scale=0.3),
        input_bias_D=normal(width, scale=0.3),
        head_weight_RD=normal(n_outputs, width, scale=width**-0.5),
        head_bias_R=normal(n_outputs, scale=0.1),
        feedback_weight_DR=normal(width, n_outputs, scale=0.3 * n_outputs**-0.5) if closed else None,
    )


def make_call(config: Mamba2Config, batch: int, steps: int, n_inputs: int) -> tuple[Tensor, Mamba2State]:
    """Random inputs and a random state."""
    generator = torch.Generator().manual_seed(batch * 7919 + steps)
    state = Mamba2State.zeros(config, batch).map(lambda tensor: 0.3 * torch.randn(tensor.shape, generator=generator))
    return torch.randn(batch, steps, n_inputs, generator=generator), state


def relative_error(ours: tuple[Tensor, Mamba2State], theirs: tuple[Tensor, Mamba2State]) -> float:
    """The largest difference in units of the largest value of the same tensor; NaN counts as infinite."""
    worst = 0.0
    expected = {"outputs": theirs[0], **theirs[1].to_tensors()}
    for name, tensor in {"outputs": ours[0], **ours[1].to_tensors()}.items():
        error = ((tensor - expected[name]).abs().max() / expected[name].abs().max()).item()
        worst = max(worst, float("inf") if math.isnan(error) else error)
    return worst


def same_bits(ours: tuple[Tensor, Mamba2State], theirs: tuple[Tensor, Mamba2State]) -> bool:
    """Whether outputs and states agree in every bit."""
    expected = theirs[1].to_tensors()
    return torch.equal(ours[0], theirs[0]) and all(
        torch.equal(tensor, expected[name]) for name, tensor in ours[1].to_tensors().items()
    )


def _row(case: str, value: float, unit: str, *, right: bool) -> Row:
    # JSON knows neither infinity nor NaN.
    finite = value if math.isfinite(value) else None
    return {"case": case, "system": "cuda", "value": finite, "unit": unit, "right": right}


def _made(
    device: Device, name: str, precision: str, steps: int, *, closed: bool
) -> tuple[CudaStack, ReferenceStack, Tensor, Mamba2State]:
    """Return a stack, its reference, inputs and a state."""
    weights = make_weights(CHECKED[name], 6, 5, closed=closed)
    reference = ReferenceBackend().pack(weights, precision)
    return CudaStack(weights, precision, device), reference, *make_call(CHECKED[name], 3, steps, 6)


def check_rollout(device: Device, name: str, precision: str, steps: int, *, closed: bool) -> Iterator[Row]:
    """A rollout against the reference, and its bits alone, among few, among many and again."""
    case = f"{name}-{precision}-{'closed' if closed else 'open'}"
    stack, reference, inputs, state = _made(device, name, precision, steps, closed=closed)
    rolled = stack.rollout(inputs, state)
    error = relative_error(rolled, reference.rollout(inputs, state))
    yield _row(f"check-rollout-{case}", error, "relative error", right=error <= TOLERANCE)
    alone = stack.rollout(inputs[1:2], state.select([1]))
    among = (rolled[0][1:2], rolled[1].select([1]))
    many = stack.rollout(inputs[1:2].expand(70, -1, -1).contiguous(), state.select([1] * 70))
    same = same_bits(alone, among) and same_bits(alone, (many[0][69:], many[1].select([69])))
    same = same and same_bits(stack.rollout(inputs, state), rolled)
    yield _row(f"check-rollout-bits-{case}", float(not same), "differs", right=same)


def check_prefill(device: Device, name: str, precision: str, steps: int) -> Iterator[Row]:
    """A prefill against the reference, whole and cut in two."""
    stack, reference, inputs, state = _made(device, name, precision, steps, closed=False)
    filled = stack.prefill(inputs, state)
    error = relative_error(filled, reference.prefill(inputs, state))
    yield _row(f"check-prefill-{name}-{precision}", error, "relative error", right=error <= TOLERANCE)
    cut = steps * 2 // 3
    first, carried = stack.prefill(inputs[:, :cut], state)
    second, carried = stack.prefill(inputs[:, cut:], carried)
    error = relative_error((torch.cat([first, second], 1), carried), filled)
    yield _row(f"check-prefill-cut-{name}-{precision}", error, "relative error", right=error <= TOLERANCE)


def check_all(device: Device, steps: int) -> Iterator[Row]:
    """Every size in every precision."""
    for name in CHECKED:
        for precision in PRECISIONS:
            for closed in (False, True):
                yield from check_rollout(device, name, precision, steps, closed=closed)
            yield from check_prefill(device, name, precision, steps)


def check_graph_and_cancel(device: CudaDevice) -> Iterator[Row]:
    """A rollout replayed as a CUDA graph gives the same bits; a running one can be cancelled."""
    stack = CudaStack(make_weights(BENCHMARKED, 12, 9, closed=True), "bf16", device)
    inputs, state = make_call(BENCHMARKED, 2, 256, 12)
    plain = stack.rollout(inputs, state)[0]
    windows, states = load_state(state, KernelSizes.of(stack.sizes), device.torch_device)
    inputs = inputs.to(device.torch_device)
    outputs = torch.full((2, 256, 9), torch.nan, device=device.torch_device)
    previous, shape = torch.zeros(2, 9, device=device.torch_device), stack.shape_for(2)
    cancel, progress = device.host_words(1), device.host_words(2)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stack.enqueue_rollout(shape, inputs, previous, windows, states, outputs, 64, cancel, progress)
    graph.replay()
    device.wait()
    same = torch.equal(outputs.cpu(), plain)
    yield _row("check-graph", float(not same), "differs", right=same)

    long_inputs, state = make_call(BENCHMARKED, 1, 400_000, 12)
    wish = threading.Event()
    asked_at = 0.0

    def ask() -> None:
        nonlocal asked_at
        asked_at = time.perf_counter()
        wish.set()

    timer = threading.Timer(0.3, ask)
    timer.start()
    cancelled = False
    try:
        stack.rollout(long_inputs, state, cancelled=wish.is_set)
    except RolloutCancelled:
        cancelled = True
    value = (time.perf_counter() - asked_at) * 1e3 if cancelled else math.nan
    timer.cancel()
    yield _row("cancel", value, "ms", right=cancelled)
