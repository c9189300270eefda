"""`rollout`: microseconds a step, d_model 128, 4 layers, d_state 64, one thread, against peers and the floor.

Cases `b1-` and `b64-` are a closed loop of one fed-back output. `-quantiles` at the end means the inputs and outputs of
the real forecaster with all outputs fed back; `-forecaster` the same fed nothing back, as the real one is: kernels may
then take several steps together, so that there is no floor of a step. All precisions and peers of a batch are timed in
the same rounds; peers run fp32 in every case, as they do for their users, and step by step.
"""

from dataclasses import dataclass

from forecasting.bench.backends import usable_backends
from forecasting.bench.measure import GroupResult, Lane, Say, Timing, measure_group
from forecasting.bench.processes import PeerError, WorkerProcess, peer_python
from forecasting.bench.report import Missing, Report, Row
from forecasting.bench.stacks import StackSpec
from models.mamba2.kernels.registry import explain

UNIT = "us/step"
# The original deployment guide asks for 1,000 steps of one series a second.
GUIDE_S = 1e-3
PRECISIONS = ("fp32", "bf16", "int8")
# After `COMPARED_STEPS` of a closed loop, relative to the reference in fp32.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.03, "int8": 0.06}
TARGETS: dict[str, dict[str, float]] = {
    "b1-d128l4-fp32": {"huggingface": 80, "torch-eager": 18, "torch-compile": 5.5, "floor": 0.8, "guide": 30},
    "b1-d128l4-bf16": {"huggingface": 130, "floor": 0.75},
    "b64-d128l4-fp32": {"huggingface": 25, "torch-compile": 3.9},
    "b64-d128l4-bf16": {"huggingface": 30, "torch-compile": 4.6},
    "b1-d128l4-fp32-forecaster": {"huggingface": 80, "torch-eager": 18, "torch-compile": 5.5},
    "b1-d128l4-bf16-forecaster": {"huggingface": 130},
    "b1-d128l4-fp32-quantiles": {"huggingface": 80, "torch-eager": 18, "torch-compile": 5.5, "floor": 0.8},
    "b1-d128l4-bf16-quantiles": {"huggingface": 130, "floor": 0.75},
    "b1-d128l4-fp32-avx2": {"avx512": 1 / 2.5},
    "b1-d128l4-fp32-365000": {"3650-steps": 1 / 1.1},
}
PEERS = ("huggingface", "torch-eager", "torch-compile", "mamba-ssm", "floor", "guide")
SHORT_STEPS, LONG_STEPS = 3_650, 365_000


@dataclass(frozen=True, slots=True)
class Group:
    """What is timed together: a batch with a head on a device."""

    batch: int
    head: str = "scalar"
    device: str = "cpu"

    def case(self, precision: str) -> str:
        """Return the name of a case."""
        parts = [f"b{self.batch}-d128l4", precision]
        if self.device != "cpu":
            parts.append(self.device)
        if self.head != "scalar":
            parts.append(self.head)
        return "-".join(parts)


CPU_GROUPS = (Group(1), Group(64), Group(1, "quantiles"), Group(1, "forecaster"), Group(64, "forecaster"))
CUDA_GROUPS = tuple(Group(batch, device="cuda") for batch in (1, 64, 1024))


def measure(*, command: str, budget_s: float, only: str = "", long: bool = True, say: Say) -> Report:
    """Run the benchmark.

    Args:
        command: how it was called, for the report.
        budget_s: time for the rounds of each group.
        only: measure only groups that have a case whose name contains this.
        long: whether to run `LONG_STEPS`, which takes half a minute.
        say: told what is going on.

    Raises:
        PeerError: not even the torch reference runs, or a variable of a backend is set wrongly.
    """
    report = Report("rollout", command)
    usable = usable_backends()
    groups = [*CPU_GROUPS, *(CUDA_GROUPS if "cuda" in usable else ())]
    for group in groups:
        cases = {precision: group.case(precision) for precision in PRECISIONS}
        if not any(only in case for case in cases.values()):
            continue
        say(f"{' '.join(cases.values())}:")
        backend = group.device if group.device in usable else "reference"
        spec = StackSpec(batch=group.batch, head=group.head, device=group.device)
        result = measure_group(_lanes(group, backend), spec.as_json(), "rollout", budget_s=budget_s, say=say)
        _report_group(report, group, cases, result)
    if not any(group.device == "cuda" for group in groups):
        reason = next(line.reason for line in explain() if line.name == "cuda")
        report.missing += [
            Missing(group.case(precision), "graphtide", reason) for group in CUDA_GROUPS for precision in PRECISIONS
        ]
    if long and only in "b1-d128l4-fp32-365000" and "cpu" in usable:
        say(f"{LONG_STEPS:,} steps in one call:")
        _long(report)
    for case in dict.fromkeys(row.case for row in report.rows):
        for peer in (*PEERS, "avx512", "3650-steps"):
            report.compare(case, peer, TARGETS.get(case, {}).get(peer))
    return report


def _lanes(group: Group, backend: str) -> list[Lane]:
    ours = [
        Lane(precision, "graphtide", backend, precision, tolerance=TOLERANCE[precision]) for precision in PRECISIONS
    ]
    peers = [Lane(name, name) for name in ("huggingface", "torch-eager", "torch-compile")]
    if group.device == "cuda":
        return [*ours, *peers, Lane("mamba-ssm", "mamba-ssm", tolerance=1e-2)]
    floors = [Lane(f"floor {name}", "floor", of=name) for name in PRECISIONS if group.head != "forecaster"]
    narrower = (
        [Lane(isa, "graphtide", "cpu", environment=(("GRAPHTIDE_CPU_ISA", isa),)) for isa in ("avx512", "avx2")]
        if group == Group(1) and backend == "cpu"
        else []
    )
    return [*ours, *floors, *narrower, *peers]


def _report_group(report: Report, group: Group, cases: dict[str, str], result: GroupResult) -> None:
    for precision, case in cases.items():
        labels = {"graphtide": precision, "floor": f"floor {precision}"}
        labels |= {name: name for name in PEERS if name not in {"floor", "guide"}}
        for system, label in labels.items():
            if label in result.timings:
                report.add(_row(case, system, result.timings[label]))
            elif label in result.missing:
                report.missing.append(Missing(case, system, result.missing[label]))
        if group.device == "cpu":
            report.add(Row(case, "guide", group.batch * GUIDE_S * 1e6, UNIT))
    if {"avx2", "avx512"} <= result.timings.keys():
        case = f"{cases['fp32']}-avx2"
        report.add(_row(case, "graphtide", result.timings["avx2"]))
        report.add(_row(case, "avx512", result.timings["avx512"]))
    for made in result.made.values():
        report.versions |= made["versions"]
    if "fp32" in result.made and result.made["fp32"]["isa"]:
        report.versions["kernels"] = result.made["fp32"]["isa"]


def _row(case: str, system: str, timing: Timing) -> Row:
    return Row(case, system, timing.best * 1e6, UNIT, timing.usual * 1e6, len(timing.seconds))


def _long(report: Report) -> None:
    """Compare a very long rollout in one call with short ones around it, and the memory that it takes."""
    case = "b1-d128l4-fp32-365000"
    try:
        with WorkerProcess(peer_python("graphtide", print)) as worker:
            spec = StackSpec().as_json()
            worker.ask(do="make", system="graphtide", spec=spec, task="rollout", backend="cpu", precision="fp32")

            def short() -> list[float]:
                return [worker.ask(do="run", steps=SHORT_STEPS, windows=1)["total_s"] / SHORT_STEPS for _ in range(5)]

            before = short()
            held_bytes = worker.ask(do="memory")["peak_bytes"]
            # In windows of the short length: the comparison is of like with like, minimum with minimum.
            answer = worker.ask(do="run", steps=SHORT_STEPS, windows=LONG_STEPS // SHORT_STEPS)
            grown_bytes = worker.ask(do="memory")["peak_bytes"] - held_bytes
            around = [*before, *short()]
    except PeerError as error:
        report.missing.append(Missing(case, "graphtide", str(error)))
        return
    late = [seconds / SHORT_STEPS for seconds in answer["seconds"][len(answer["seconds"]) // 2 :]]
    report.add(_row(case, "graphtide", Timing(late)))
    report.add(_row(case, "3650-steps", Timing(around)))
    report.add(Row(case, "whole-call", answer["total_s"] / LONG_STEPS * 1e6, UNIT))
    report.add(Row("b1-d128l4-fp32-365000-memory", "graphtide", grown_bytes / 2**20, "MiB more than 3,650 steps"))
