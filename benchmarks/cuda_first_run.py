"""The CUDA kernels on a GPU: right first, then how fast, in one run that fits into a few minutes.

    python benchmarks/cuda_first_run.py [--output FILE] [--steps N] [--budget SECONDS]

Needs torch and numpy, a GPU and its driver; with mamba_ssm (and causal_conv1d) installed, those are timed beside. A
comparison with the torch reference comes first, and nothing is timed if it is wrong. Then come the figures, the most
wanted first: rollouts, mamba_ssm's, prefill and scan, other plans of a rollout, barriers and exchanges, first use; then
the comparisons of every size. What the budget leaves out is named. The file is written anew after each part, so that
a run that is cut short keeps what it has.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from cuda_checks import BENCHMARKED, Row, check_all, check_graph_and_cancel, check_prefill, check_rollout, make_weights
from hardware import hardware

from forecasting.bench.stacks import StackSpec
from forecasting.bench.systems import MambaSsm
from models.mamba2.kernels.contract import BackendUnavailableError
from models.mamba2.kernels.cuda.cache import CubinCache
from models.mamba2.kernels.cuda.device import CudaDevice, why_unavailable
from models.mamba2.kernels.cuda.nvrtc import KernelBuildError, Nvrtc, compile_cached
from models.mamba2.kernels.cuda.packing import load_state
from models.mamba2.kernels.cuda.plan import KernelSizes
from models.mamba2.kernels.cuda.rollout_plan import RolloutPlan, plan_rollouts
from models.mamba2.kernels.cuda.stack import CudaStack
from models.mamba2.state import Mamba2State

REPEATS = 5
COST_ROUNDS = 20_000
BATCH_STEPS = 500
BATCHES = (1, 16, 64, 1024)
# Of our time by that of mamba_ssm in the same run.
TARGETS = {"b1-": 15.0, "b1024-": 3.0, "scan-": 1.5, "prefill-": 1.5}


def seconds(device: CudaDevice, call: Callable[[], object]) -> tuple[float, float]:
    """Return least and median seconds of a call that launches work, after one that does not count."""
    times = []
    for _ in range(REPEATS + 1):
        device.wait()
        start = time.perf_counter()
        call()
        device.wait()
        times.append(time.perf_counter() - start)
    return min(times[1:]), statistics.median(times[1:])


def timed(
    case: str, device: CudaDevice, call: Callable[[], object], per: int, unit: str, system: str = "cuda", **more: Any
) -> Row:
    """Return the row of a call whose time is divided by `per`; the unit is "NAME/..." or NAME for s, ms, us or ns."""
    scale = {"ms": 1e3, "us": 1e6, "ns": 1e9}[unit.partition("/")[0]] / per
    least, median = seconds(device, call)
    return {"case": case, "system": system, "value": least * scale, "unit": unit, "median": median * scale, **more}


def measure_rollout(
    device: CudaDevice, spec: StackSpec, precision: str, steps: int, plans: list[RolloutPlan] | None = None
) -> Row:
    """A loop on the device, without copies from and to the host."""
    stack = CudaStack(spec.weights(), precision, device, rollout_plans=plans)
    inputs = spec.inputs(steps).to(device.torch_device)
    zeros = Mamba2State.zeros(spec.config, spec.batch)
    windows, states = load_state(zeros, KernelSizes.of(stack.sizes), device.torch_device)
    shape = stack.shape_for(spec.batch)
    outputs = torch.empty(spec.batch, steps, spec.n_outputs, device=device.torch_device)
    previous = torch.zeros(spec.batch, spec.n_outputs, device=device.torch_device)
    cancel, progress = device.host_words(1), device.host_words(-(-spec.batch // shape.plan.series))

    def call() -> None:
        stack.enqueue_rollout(shape, inputs, previous, windows, states, outputs, 1024, cancel, progress)

    plan = {name: getattr(shape.plan, name) for name in ("cluster", "series", "threads", "resident_layers")}
    case = _case(spec, precision)
    return timed(case, device, call, steps, "us/step", **plan, resident_clusters=shape.resident_clusters, steps=steps)


def _case(spec: StackSpec, precision: str) -> str:
    return f"b{spec.batch}-d128l4-{precision}" + ("" if spec.head == "scalar" else f"-{spec.head}")


def measure_rollouts(device: CudaDevice, steps: int) -> Iterator[Row]:
    """One series long and with every head, then batches."""
    for precision in ("bf16", "fp32"):
        for head in ("scalar", "quantiles", "forecaster"):
            yield measure_rollout(device, StackSpec(head=head), precision, steps)
        for batch in BATCHES[1:]:
            yield measure_rollout(device, StackSpec(batch=batch), precision, BATCH_STEPS)


def measure_mamba_ssm(device: CudaDevice) -> Iterator[Row]:
    """`mamba_ssm`'s own steps as CUDA graphs, and its prefill; it runs fp32, with TF32 products where it chooses so."""
    for batch in BATCHES:
        peer = MambaSsm(StackSpec(batch=batch, device="cuda"), "rollout")

        def call(peer: MambaSsm = peer) -> None:
            for _ in range(100):
                peer.replay()

        row = timed(f"b{batch}-d128l4", device, call, 100, "us/step", "mamba-ssm")
        for precision in ("bf16", "fp32"):
            yield {**row, "case": _case(StackSpec(batch=batch), precision)}


def measure_prefill(device: CudaDevice, steps: int) -> Iterator[Row]:
    """A history of one series, on the device; ours in both precisions, `mamba_ssm`'s in fp32."""
    spec = StackSpec(head="forecaster")
    inputs = spec.inputs(steps).to(device.torch_device)
    for precision in ("bf16", "fp32"):
        stack = CudaStack(spec.weights(), precision, device)
        sizes = KernelSizes.of(stack.sizes)
        windows, states = load_state(Mamba2State.zeros(spec.config, 1), sizes, device.torch_device)
        outputs = torch.empty(1, steps, spec.n_outputs, device=device.torch_device)
        case = f"prefill-{steps}-{precision}"

        def call(
            stack: CudaStack = stack, windows: Any = windows, states: Any = states, outputs: Any = outputs
        ) -> None:
            stack.enqueue_prefill(inputs, windows, states, outputs)

        yield timed(case, device, call, 1, "ms")
    peer = MambaSsm(replace(spec, device="cuda"), "prefill")
    with torch.no_grad():
        yield timed(f"prefill-{steps}-fp32", device, lambda: peer.prefill(inputs), 1, "ms", "mamba-ssm")


def measure_scan(device: CudaDevice, batch: int, steps: int) -> Iterator[Row]:
    """The scan of one layer, ours and mamba_ssm's, each as a CUDA graph, so that no launch counts."""
    config = BENCHMARKED
    stack = CudaStack(make_weights(config, 1, 1, closed=False), "fp32", device)
    generator = torch.Generator().manual_seed(1)
    shape = (batch, steps, config.conv_dim)
    channels = torch.randn(shape, generator=generator).to(device.torch_device)
    dt = (0.1 * torch.rand(batch, steps, config.n_heads, generator=generator)).to(device.torch_device)
    state = torch.zeros(batch, config.n_heads, config.headdim, config.d_state, device=device.torch_device)
    outputs = torch.empty(batch, steps, config.d_inner, device=device.torch_device)
    case = f"scan-b{batch}-{steps}"
    yield timed(case, device, _graph(lambda: stack.enqueue_scan(0, channels, dt, state, outputs)), 1, "ms")
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # noqa: PLC0415

    x, b, c = channels.split([config.d_inner, config.d_state, config.d_state], -1)
    x, b, c = x.reshape(batch, steps, config.n_heads, -1), b.unsqueeze(2).contiguous(), c.unsqueeze(2).contiguous()
    rates = -torch.ones(config.n_heads, device=device.torch_device)
    for chunk in (64, 128, 256):
        peer = _graph(
            lambda chunk=chunk: mamba_chunk_scan_combined(x, dt, rates, b, c, chunk, return_final_states=True)
        )
        yield timed(case, device, peer, 1, "ms", "mamba-ssm", chunk=chunk)


def _graph(call: Callable[[], object]) -> Callable[[], None]:
    """Return what replays the launches of a call."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(2):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure_plans(device: CudaDevice) -> Iterator[Row]:
    """Other clusters and blocks than the chosen ones."""
    for precision, weight_bytes in (("bf16", 2), ("fp32", 4)):
        spec = StackSpec()
        for plan in plan_rollouts(spec.weights().sizes, weight_bytes, device.limits):
            for threads in (256, 512):
                case = f"plan-c{plan.cluster}-t{threads}-{_case(spec, precision)}"
                try:
                    row = measure_rollout(device, spec, precision, 2000, [replace(plan, threads=threads)])
                except (BackendUnavailableError, KernelBuildError) as error:
                    row = {"system": "cuda", "value": None, "unit": f"refused: {str(error)[:100]}"}
                yield {**row, "case": case}


def cost_shared_bytes(cluster: int, words: int) -> int:
    """Return the shared memory of a block of cuda_costs.cu: four counters, then a number a thread or four buffers."""
    return 32 + max(4 * 512, 16 * cluster * words)


def measure_costs(device: CudaDevice) -> Iterator[Row]:
    """What a barrier and an exchange cost, by cluster and by numbers sent."""
    text = (Path(__file__).parent / "cuda_costs.cu").read_text(encoding="utf-8")
    out = torch.zeros(512, device=device.torch_device)
    for cluster in (2, 4, 8, 16) if device.limits.has_clusters else (1,):
        for words in (16, 128, 512):
            program = device.load_text(text, {"CLUSTER": str(cluster), "WORDS": str(words)})
            shared_bytes = cost_shared_bytes(cluster, words)
            barriers = ("block_barriers", "cluster_barriers") if words == 16 else ()
            counted = ("counted_exchanges",) if cluster > 1 else ()
            for kernel in (*barriers, "barrier_exchanges", *counted):
                case = f"{kernel}-c{cluster}" + ("" if "barriers" in kernel else f"-w{words}")
                if program.resident_clusters(kernel, cluster, 512, shared_bytes) == 0:
                    yield {"case": case, "system": "cuda", "value": None, "unit": "refused by the GPU"}
                    continue

                def call(kernel: str = kernel, program: Any = program, shared: int = shared_bytes) -> None:
                    program.launch(kernel, (cluster, 1), 512, shared, [out, COST_ROUNDS])  # noqa: B023

                yield timed(case, device, call, COST_ROUNDS, "ns")


def measure_first_use(device: CudaDevice) -> Iterator[Row]:
    """Compilation, and the same from the cache."""
    stack = CudaStack(StackSpec(head="quantiles").weights(), "bf16", device)
    prefill, rollout = stack.prefill_plan.defines(), stack.shape_for(1).plan.defines()
    sources = {"products.cu": prefill, "scan.cu": prefill, "rollout.cu": rollout}
    with tempfile.TemporaryDirectory() as folder:

        def build(source: str, unseen: str) -> None:
            # NVRTC keeps what it compiled; another macro makes it a text that it has not seen.
            defines = {**sources[source], "UNSEEN": unseen}
            compile_cached(Nvrtc(), CubinCache(Path(folder)), source, device.architecture, defines)

        def timed_ms(case: str, do: Callable[[], object]) -> Row:
            start = time.perf_counter()
            do()
            return {"case": case, "system": "cuda", "value": (time.perf_counter() - start) * 1e3, "unit": "ms"}

        apart, together = str(time.time_ns()), str(time.time_ns() + 1)
        for kind in ("compile", "from-cache"):
            for source in sources:
                yield timed_ms(f"first-use-{kind}-{source}", lambda source=source: build(source, apart))

        def all_as_a_stack_does() -> None:
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(lambda source: build(source, together), ("products.cu", "scan.cu")))
            build("rollout.cu", together)

        yield timed_ms("first-use-compile-all", all_as_a_stack_does)


def compare(rows: list[Row]) -> list[Row]:
    """Return what was asked for beside what was measured; a ratio above 1 says that we are ahead."""
    ratios = []

    def add(case: str, peer: str, ratio: float, target: float) -> None:
        ratios.append({"case": case, "peer": peer, "ratio": ratio, "target": target, "met": ratio >= target})

    ours = {row["case"]: row["value"] for row in rows if row["system"] == "cuda" and row["value"]}
    for case, asked, unit in (
        ("b1-d128l4-bf16", 5.0, "us/step"),
        ("first-use-compile-rollout.cu", 1000.0, "ms"),
        ("first-use-compile-all", 1000.0, "ms"),
        ("first-use-from-cache-rollout.cu", 10.0, "ms"),
    ):
        if case in ours:
            add(case, f"asked: {asked} {unit}", asked / ours[case], 1)
    peers: dict[str, float] = {}
    for row in rows:
        if row["system"] == "mamba-ssm":
            peers[row["case"]] = min(row["value"], peers.get(row["case"], row["value"]))
    for case, value in peers.items():
        target = next((target for start, target in TARGETS.items() if case.startswith(start)), 1.0)
        if case in ours:
            add(case, "mamba-ssm", value / ours[case], target)
    return ratios


def describe(device: CudaDevice) -> dict[str, Any]:
    """Return hardware and versions, as the file has them."""
    properties = torch.cuda.get_device_properties(device.torch_device)
    return {
        "bench": "cuda",
        "command": "python benchmarks/cuda_first_run.py",
        "hardware": {
            **hardware(),
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "shared_bytes": device.limits.shared_bytes,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "nvrtc": Nvrtc().version,
        },
    }


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "cuda.json")
    parser.add_argument("--steps", type=int, default=36_500, help="steps of the long rollout and prefill")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds after which no further part begins")
    arguments = parser.parse_args()
    if reason := why_unavailable():
        sys.exit(f"this benchmark needs a GPU: {reason}")
    # The references are thousands of tiny operations: more threads only wait for each other.
    torch.set_num_threads(1)
    started = time.monotonic()
    device = CudaDevice()
    report = {**describe(device), "rows": [], "ratios": [], "missing": []}
    rows: list[Row] = report["rows"]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)

    def take(name: str, more: Iterator[Row]) -> None:
        if time.monotonic() - started > arguments.budget:
            report["missing"].append({"case": name, "reason": "the budget was spent"})
        else:
            try:
                for row in more:
                    rows.append(row)
                    print(json.dumps(row), flush=True)
            except Exception as error:  # noqa: BLE001 - one part must not cost the others
                traceback.print_exc()
                report["missing"].append({"case": name, "reason": f"{type(error).__name__}: {error}"[:300]})
        report["ratios"] = compare(rows)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    for precision in ("bf16", "fp32"):
        take("check", check_rollout(device, "d128l4", precision, 48, closed=True))
        take("check", check_prefill(device, "d128l4", precision, 48))
    wrong = [row["case"] for row in rows if not row["right"]]
    if wrong or report["missing"]:
        sys.exit(f"wrong results, so nothing was timed: {wrong or report['missing']}")
    take("rollouts", measure_rollouts(device, arguments.steps))
    take("mamba-ssm", measure_mamba_ssm(device))
    take("scan", measure_scan(device, 1, arguments.steps))
    take("scan", measure_scan(device, 64, 1024))
    take("prefill", measure_prefill(device, arguments.steps))
    take("plans", measure_plans(device))
    take("costs", measure_costs(device))
    take("first use", measure_first_use(device))
    take("graph and cancel", check_graph_and_cancel(device))
    take("all checks", check_all(device, 48))
    print(json.dumps({"ratios": report["ratios"], "missing": report["missing"]}, indent=1))
    if wrong := [row["case"] for row in rows if not row.get("right", True)]:
        sys.exit(f"wrong results: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
