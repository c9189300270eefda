"""Memory of one training step on a single sequence of 36,500 steps, with and without gradient checkpointing.

    python benchmarks/training_memory.py

Each case runs in a process of its own: encode 256 observed steps, forecast 36,500 steps ahead, take the loss and its
gradients. What is compared is the peak of the resident memory above what the process had before the step. The result
is printed as JSON and kept in benchmarks/results/training_memory.json.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from hardware import hardware, versions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from infra.steps import HOUR_US
from models.columns import MODELLED, N_MODELLED
from models.features import CausalStatistics
from models.forecaster import ForecasterConfig, ForecasterNet
from models.losses import batch_loss
from models.samples import Batch

RESULT = Path(__file__).parent / "results" / "training_memory.json"
STEPS, HISTORY = 36_500, 256
CASES = {"default": {}, "d128l4": {"d_model": 128, "n_layers": 4, "d_state": 64, "headdim": 64}}
TARGET_RATIO = 0.5


def one_batch() -> Batch:
    """Return one sequence of noise around a level; memory does not depend on what the numbers are."""
    generator = np.random.default_rng(0)
    values = generator.poisson(5.0, (HISTORY, N_MODELLED)).astype(float)
    statistics, tokens = CausalStatistics.start(HOUR_US, 0).observe(values)
    ahead = statistics.ahead(1, STEPS, STEPS)
    target = torch.from_numpy(generator.standard_normal((1, STEPS, len(MODELLED))).astype(np.float32))
    low = torch.full_like(target, -10.0)
    return Batch(
        cuts=np.array([HISTORY]),
        history_BLF=torch.from_numpy(tokens.features)[None],
        ahead_NHF=torch.from_numpy(ahead.features)[None],
        target_NHM=target,
        low_NHM=low,
        high_NHM=-low,
        weight_NHM=torch.ones_like(target),
    )


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(case: str, checkpointed: bool) -> None:
    """Take one step and print its memory, its time and its gradients."""
    net = ForecasterNet(ForecasterConfig(**CASES[case], dropout=0.0, reach_steps=STEPS)).train()
    batch = one_batch()
    before = peak_mib()
    begin_s = time.perf_counter()
    loss = batch_loss(net, batch, checkpoint_blocks=checkpointed)
    loss.backward()
    elapsed_s = time.perf_counter() - begin_s
    gradients = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    np.save(sys.argv[4], gradients.numpy())
    print(json.dumps({"mib": peak_mib() - before, "s": elapsed_s, "loss": float(loss)}))


def main() -> None:
    """Measure every case, or take the one step that is asked for."""
    if len(sys.argv) > 1:
        step(sys.argv[2], sys.argv[3] == "checkpointed")
        return
    rows, ratios = [], []
    for case in CASES:
        found = {}
        for system in ("plain", "checkpointed"):
            path = RESULT.with_suffix(f".{system}.npy")
            call = [sys.executable, __file__, "step", case, system, str(path)]
            said = json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout)
            found[system] = (said, np.load(path))
            path.unlink()
            rows += [
                {"case": case, "system": system, "value": round(said["mib"]), "unit": "MiB"},
                {"case": f"{case}-time", "system": system, "value": round(said["s"], 2), "unit": "s"},
            ]
        (plain, plain_gradient), (checked, checked_gradient) = found["plain"], found["checkpointed"]
        ratio = checked["mib"] / plain["mib"]
        apart = float(np.abs(plain_gradient - checked_gradient).max() / np.abs(plain_gradient).max())
        rows.append(
            {"case": f"{case}-gradients", "system": "largest difference", "value": apart, "unit": "of the largest"}
        )
        ratios.append(
            {"case": case, "peer": "plain", "ratio": ratio, "target": TARGET_RATIO, "met": ratio <= TARGET_RATIO}
        )
    report = {
        "bench": "training_memory",
        "command": "python benchmarks/training_memory.py",
        "hardware": hardware(),
        "versions": versions("graphtide", "torch", "numpy"),
        "rows": rows,
        "ratios": ratios,
    }
    text = json.dumps(report, indent=1) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
