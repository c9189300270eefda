"""The CUDA kernels on a GPU: right first, then how fast, in one run.

    python benchmarks/cuda_first_run.py [--output FILE] [--steps N]

Needs torch and numpy, a GPU and its driver. Checks every kernel against the torch reference and stops if one is wrong.
Then it measures what barriers and exchanges cost, a rollout of one series and of 1,024, prefill, and first use; with
mamba_ssm installed also its Triton scan. The result is printed as JSON and kept in benchmarks/results/cuda.json.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import PRECISIONS, RolloutCancelled, StackWeights
from models.mamba2.kernels.cuda.cache import CubinCache
from models.mamba2.kernels.cuda.device import CudaDevice, Device, why_unavailable
from models.mamba2.kernels.cuda.nvrtc import Nvrtc, compile_cached
from models.mamba2.kernels.cuda.packing import load_state
from models.mamba2.kernels.cuda.plan import KernelSizes
from models.mamba2.kernels.cuda.stack import CudaStack
from models.mamba2.kernels.torch_backend import ReferenceBackend
from models.mamba2.state import Mamba2State

BENCHMARKED = Mamba2Config(d_model=128, n_layers=4)
CHECKED = {
    "d128l4": BENCHMARKED,
    "d64l2": Mamba2Config(d_model=64, n_layers=2),
    "d256l6": Mamba2Config(d_model=256, n_layers=6),
    "grouped": Mamba2Config(d_model=48, n_layers=2, d_state=16, headdim=16, n_groups=2, dt_limit=(0.002, 0.08)),
    "odd": Mamba2Config(d_model=21, n_layers=3, d_state=13, headdim=7, d_conv=3, n_groups=3),
}
# bf16 and int8 are compared with the reference at the same rounded weights, so all are held to what fp32 promises.
TOLERANCE = 1e-5
REPEATS = 5
COST_ROUNDS = 100_000

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


def check(device: Device, configs: dict[str, Mamba2Config], steps: int) -> list[Row]:
    """Compare every kernel with the reference; a row for each comparison."""
    rows = []

    def add(case: str, value: float, *, good: bool) -> None:
        rows.append({"case": case, "system": "cuda", "value": value, "unit": "relative error", "right": good})

    for name, config in configs.items():
        for precision in PRECISIONS:
            for closed in (False, True):
                weights = make_weights(config, 6, 5, closed=closed)
                stack, reference = CudaStack(weights, precision, device), ReferenceBackend().pack(weights, precision)
                inputs, state = make_call(config, 3, steps, 6)
                case = f"{name}-{precision}-{'closed' if closed else 'open'}"
                rolled = stack.rollout(inputs, state)
                error = relative_error(rolled, reference.rollout(inputs, state))
                add(f"check-rollout-{case}", error, good=error <= TOLERANCE)
                alone = stack.rollout(inputs[1:2], state.select([1]))
                same = same_bits(alone, (rolled[0][1:2], rolled[1].select([1])))
                again = same_bits(stack.rollout(inputs, state), rolled)
                add(f"check-rollout-bits-{case}", float(not (same and again)), good=same and again)
                if closed:
                    continue
                filled = stack.prefill(inputs, state)
                error = relative_error(filled, reference.prefill(inputs, state))
                add(f"check-prefill-{case}", error, good=error <= TOLERANCE)
                cut = steps * 2 // 3
                first, carried = stack.prefill(inputs[:, :cut], state)
                second, carried = stack.prefill(inputs[:, cut:], carried)
                error = relative_error((torch.cat([first, second], 1), carried), filled)
                add(f"check-prefill-cut-{case}", error, good=error <= TOLERANCE)
    return rows


def seconds(device: Device, call: Callable[[], object]) -> tuple[float, float]:
    """Return least and median seconds of a call that launches work, after one that does not count."""
    times = []
    for _ in range(REPEATS + 1):
        device.wait()
        start = time.perf_counter()
        call()
        device.wait()
        times.append(time.perf_counter() - start)
    return min(times[1:]), statistics.median(times[1:])


def timed(case: str, device: Device, call: Callable[[], object], per: int, unit: str, scale: float) -> Iterator[Row]:
    """Yield rows for the time of a call, divided by `per`."""
    least, median = seconds(device, call)
    for name, value in (("least", least), ("median", median)):
        yield {"case": case, "system": "cuda", "value": value / per * scale, "unit": unit, "statistic": name}


def measure_costs(device: CudaDevice) -> Iterator[Row]:
    """What a barrier and an exchange cost."""
    text = (Path(__file__).parent / "cuda_costs.cu").read_text(encoding="utf-8")
    out = torch.zeros(512, device=device.torch_device)
    for cluster in (1, 2, 4, 8, 16) if device.limits.has_clusters else (1,):
        program = device.load_text(text, {"CLUSTER": str(cluster)})
        shared_bytes = max(4 * 512, 8 * cluster * 128)
        if program.resident_clusters("exchanges", cluster, 512, shared_bytes) == 0:
            yield {"case": f"exchange-cluster-{cluster}", "system": "cuda", "value": None, "unit": "refused by the GPU"}
            continue
        for kernel in ("block_barriers", "cluster_barriers", "exchanges"):
            program.resident_clusters(kernel, cluster, 512, shared_bytes)

            def call(
                kernel: str = kernel, program: Any = program, shared: int = shared_bytes, n: int = cluster
            ) -> None:
                program.launch(kernel, (n, 1), 512, shared, [out, COST_ROUNDS])

            yield from timed(f"{kernel}-cluster-{cluster}", device, call, COST_ROUNDS, "ns", 1e9)


def measure_rollout(device: Device, batch: int, steps: int, precision: str, n_outputs: int) -> Iterator[Row]:
    """A closed loop on the device, without copies from and to the host."""
    stack = CudaStack(make_weights(BENCHMARKED, 12, n_outputs, closed=True), precision, device)
    inputs, state = make_call(BENCHMARKED, batch, steps, 12)
    inputs = inputs.to(device.torch_device)
    windows, states = load_state(state, KernelSizes.of(stack.sizes), device.torch_device)
    shape = stack.shape_for(batch)
    outputs = torch.empty(batch, steps, n_outputs, device=device.torch_device)
    previous = torch.zeros(batch, n_outputs, device=device.torch_device)
    cancel, progress = device.host_words(1), device.host_words(-(-batch // shape.plan.series))

    def call() -> None:
        stack.enqueue_rollout(shape, inputs, previous, windows, states, outputs, 1024, cancel, progress)

    case = f"b{batch}-d128l4-{precision}-cuda" + ("" if n_outputs == 1 else f"-r{n_outputs}")
    for row in timed(case, device, call, steps, "us/step", 1e6):
        yield {**row, "cluster": shape.plan.cluster, "series": shape.plan.series, "resident": shape.resident_clusters}


def measure_prefill(device: Device, steps: int, precision: str) -> Iterator[Row]:
    """A history of one series, on the device."""
    stack = CudaStack(make_weights(BENCHMARKED, 12, 9, closed=False), precision, device)
    inputs, state = make_call(BENCHMARKED, 1, steps, 12)
    inputs = inputs.to(device.torch_device)
    windows, states = load_state(state, KernelSizes.of(stack.sizes), device.torch_device)
    outputs = torch.empty(1, steps, 9, device=device.torch_device)
    case = f"prefill-{steps}-{precision}-cuda"
    yield from timed(case, device, lambda: stack.enqueue_prefill(inputs, windows, states, outputs), 1, "ms", 1e3)


def measure_scan(device: Device, batch: int, steps: int) -> Iterator[Row]:
    """The scan of one layer, ours and mamba_ssm's where it is installed."""
    config = BENCHMARKED
    stack = CudaStack(make_weights(config, 1, 1, closed=False), "fp32", device)
    generator = torch.Generator().manual_seed(1)
    shape = (batch, steps, config.conv_dim)
    channels = torch.randn(shape, generator=generator).to(device.torch_device)
    dt = (0.1 * torch.rand(batch, steps, config.n_heads, generator=generator)).to(device.torch_device)
    state = torch.zeros(batch, config.n_heads, config.headdim, config.d_state, device=device.torch_device)
    outputs = torch.empty(batch, steps, config.d_inner, device=device.torch_device)
    case = f"scan-b{batch}-{steps}"
    yield from timed(case, device, lambda: stack.enqueue_scan(0, channels, dt, state, outputs), 1, "ms", 1e3)
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # noqa: PLC0415
    except ImportError as error:
        yield {"case": case, "system": "mamba-ssm", "value": None, "unit": f"not installed: {error}"}
        return
    x, b, c = channels.split([config.d_inner, config.d_state, config.d_state], -1)
    x, b, c = x.reshape(batch, steps, config.n_heads, -1), b.unsqueeze(2).contiguous(), c.unsqueeze(2).contiguous()
    rates = -torch.ones(config.n_heads, device=device.torch_device)
    for row in timed(case, device, lambda: mamba_chunk_scan_combined(x, dt, rates, b, c, 64), 1, "ms", 1e3):
        yield {**row, "system": "mamba-ssm"}


def measure_first_use(device: CudaDevice) -> Iterator[Row]:
    """Compilation, and the same from the cache."""
    stack = CudaStack(make_weights(BENCHMARKED, 12, 9, closed=True), "bf16", device)
    sources = {"prefill.cu": stack.prefill_plan.defines(), "rollout.cu": stack.shape_for(1).plan.defines()}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("compile", "from-cache"):
            for source, defines in sources.items():
                start = time.perf_counter()
                compile_cached(Nvrtc(), CubinCache(Path(folder)), source, device.architecture, defines)
                value = time.perf_counter() - start
                yield {"case": f"first-use-{kind}-{source}", "system": "cuda", "value": value * 1e3, "unit": "ms"}


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
    yield {"case": "check-graph", "system": "cuda", "value": float(not same), "unit": "differs", "right": same}

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
    value = (time.perf_counter() - asked_at) * 1e3 if cancelled else None
    timer.cancel()
    yield {"case": "cancel", "system": "cuda", "value": value, "unit": "ms", "right": cancelled}


def compare_with_targets(rows: list[Row]) -> list[Row]:
    """Return what was asked for beside what was measured; a ratio above 1 says that we are ahead."""
    ratios = []

    def add(case: str, peer: str, ratio: float, target: float) -> None:
        ratios.append({"case": case, "peer": peer, "ratio": ratio, "target": target, "met": ratio >= target})

    for case, asked, unit in (
        ("b1-d128l4-bf16-cuda", 5.0, "us/step"),
        ("b1-d128l4-fp32-cuda", 5.0, "us/step"),
        ("first-use-compile-rollout.cu", 1000.0, "ms"),
        ("first-use-compile-prefill.cu", 1000.0, "ms"),
        ("first-use-from-cache-rollout.cu", 10.0, "ms"),
    ):
        found = [row["value"] for row in rows if row["case"] == case]
        if found:
            add(case, f"asked: {asked} {unit}", asked / min(found), 1)
    for row in rows:
        if row["system"] == "mamba-ssm" and row.get("statistic") == "least":
            ours = [one["value"] for one in rows if one["case"] == row["case"] and one["system"] == "cuda"]
            add(row["case"], "mamba-ssm", row["value"] / min(ours), 1.5)
    return ratios


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "cuda.json")
    parser.add_argument("--steps", type=int, default=36_500, help="steps of the long rollout and prefill")
    arguments = parser.parse_args()
    if reason := why_unavailable():
        sys.exit(f"this benchmark needs a GPU: {reason}")
    device = CudaDevice()
    rows: list[Row] = []

    def take(more: Iterator[Row]) -> None:
        for row in more:
            rows.append(row)
            print(json.dumps(row), flush=True)

    take(iter(check(device, CHECKED, 200)))
    take(check_graph_and_cancel(device))
    wrong = [row["case"] for row in rows if not row["right"]]
    if not wrong:
        take(measure_costs(device))
        for precision in ("bf16", "fp32"):
            for n_outputs in (1, 162):
                take(measure_rollout(device, 1, arguments.steps, precision, n_outputs))
            for batch in (16, 64, 1024):
                take(measure_rollout(device, batch, 1000, precision, 1))
            take(measure_prefill(device, arguments.steps, precision))
        take(measure_scan(device, 1, arguments.steps))
        take(measure_scan(device, 64, 1024))
        take(measure_first_use(device))
    properties = torch.cuda.get_device_properties(device.torch_device)
    result = {
        "bench": "cuda",
        "hardware": {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "shared_bytes": device.limits.shared_bytes,
            "machine": platform.machine(),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "nvrtc": Nvrtc().version,
        },
        "rows": rows,
        "ratios": compare_with_targets(rows),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["ratios"], indent=1))
    if wrong:
        sys.exit(f"wrong results, so nothing was timed: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
