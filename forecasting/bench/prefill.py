"""`prefill`: seconds for a history of 36,500 steps at once, one series, d_model 128, 4 layers, against Hugging Face."""

from forecasting.bench.backends import usable_backends
from forecasting.bench.measure import Lane, Say, measure_group
from forecasting.bench.report import Missing, Report, Row
from forecasting.bench.stacks import StackSpec
from models.mamba2.kernels.registry import explain

UNIT = "s"
STEPS = 36_500
# What Hugging Face takes unless told otherwise, and with what it is fastest of 32, 64, 128 and 256.
HUGGINGFACE_CHUNK, TUNED_CHUNK = 256, 128
TARGETS: dict[str, dict[str, float]] = {"prefill-36500": {"huggingface": 25}}
CASES = {"prefill-36500": "fp32", "prefill-36500-bf16": "bf16"}
CUDA_CASES = {f"{case}-cuda": precision for case, precision in CASES.items()}
# Chunks add up in another order than steps, which a feedback-free stack does not amplify.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.03}


def measure(*, command: str, budget_s: float, steps: int = STEPS, say: Say) -> Report:
    """Run the benchmark.

    Args:
        command: how it was called, for the report.
        budget_s: time for the rounds; two are made at least.
        steps: length of the history; the cases are named after the usual one.
        say: told what is going on.

    Raises:
        PeerError: not even the torch reference runs, or a variable of a backend is set wrongly.
    """
    report = Report("prefill", command)
    usable = usable_backends()
    for device, cases in (("cpu", CASES), ("cuda", CUDA_CASES)):
        if device == "cuda" and "cuda" not in usable:
            reason = next(line.reason for line in explain() if line.name == "cuda")
            report.missing += [Missing(case, "graphtide", reason) for case in cases]
            continue
        say(f"{' '.join(cases)}:")
        backend = device if device in usable else "reference"
        lanes = [
            Lane(precision, "graphtide", backend, precision, tolerance=TOLERANCE[precision])
            for precision in cases.values()
        ]
        lanes += [
            Lane("huggingface", "huggingface", chunk_size=HUGGINGFACE_CHUNK),
            Lane("huggingface-tuned", "huggingface", chunk_size=TUNED_CHUNK),
            Lane("torch-reference", "torch-reference"),
        ]
        if device == "cuda":
            lanes.append(Lane("mamba-ssm", "mamba-ssm", tolerance=1e-2))
        peers = [lane.label for lane in lanes if lane.system != "graphtide"]
        spec = StackSpec(device=device)
        result = measure_group(lanes, spec.as_json(), "prefill", budget_s=budget_s, prefill_steps=steps, say=say)
        for case, precision in cases.items():
            for system, label in {"graphtide": precision, **{name: name for name in peers}}.items():
                if label in result.timings:
                    timing = result.timings[label]
                    report.add(Row(case, system, timing.best, UNIT, timing.usual, len(timing.seconds)))
                elif label in result.missing:
                    report.missing.append(Missing(case, system, result.missing[label]))
            for peer in peers:
                report.compare(case, peer, TARGETS.get(case, {}).get(peer))
        for made in result.made.values():
            report.versions |= made["versions"]
    return report
