"""The script for the first run on a GPU, as far as it goes without one: its comparisons, on the emulator."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from models.mamba2.kernels.cuda.nvrtc import source_texts
from tests.kernels.cuda_emulation import EmulatedDevice, build, run_kernel

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import cuda_checks  # noqa: E402
import cuda_first_run  # noqa: E402


def test_right_kernels_are_found_right(tmp_path: Path, compiler: str) -> None:
    device = EmulatedDevice(tmp_path, compiler)
    rows = [
        *cuda_checks.check_rollout(device, "odd", "bf16", 3, closed=True),
        *cuda_checks.check_prefill(device, "odd", "fp32", 5),
    ]
    assert len(rows) == 4
    assert all(row["right"] for row in rows)


def test_wrong_kernels_are_found_wrong(tmp_path: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = cuda_checks.ReferenceBackend.pack
    monkeypatch.setattr(
        cuda_checks.ReferenceBackend, "pack", lambda self, weights, _precision: reference(self, weights, "int8")
    )
    rows = cuda_checks.check_rollout(EmulatedDevice(tmp_path, compiler), "odd", "fp32", 3, closed=False)
    assert [row["right"] for row in rows] == [False, True]


def test_results_that_are_no_numbers_make_a_file_that_others_can_read(
    tmp_path: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_checks, "relative_error", lambda *_: math.inf)
    rows = list(cuda_checks.check_prefill(EmulatedDevice(tmp_path, compiler), "odd", "fp32", 5))
    assert [row["right"] for row in rows] == [False, False]
    assert json.dumps(rows, allow_nan=False)


def run_costs(kernel: str, folder: Path, compiler: str, count: int) -> torch.Tensor:
    """Return what a kernel makes of the numbers from 0 on, in the shared memory that the script gives it."""
    for name, text in source_texts().items():
        (folder / name).write_text(text)
    source = folder / "costs.cu"
    source.write_text((BENCHMARKS / "cuda_costs.cu").read_text())
    library = build(folder, compiler, source, {"CLUSTER": "2", "WORDS": "16"}, [kernel])
    values = torch.arange(512.0)
    run_kernel(library, kernel, (2, 1), 512, cuda_first_run.cost_shared_bytes(2, 16), [values, count], cluster=2)
    return values


@pytest.mark.parametrize("kernel", ["block_barriers", "cluster_barriers"])
def test_barriers_find_a_place_for_every_thread(kernel: str, tmp_path: Path, compiler: str) -> None:
    run_costs(kernel, tmp_path, compiler, 3)


@pytest.mark.parametrize("kernel", ["barrier_exchanges", "counted_exchanges"])
def test_exchanges_give_the_mean_of_the_blocks(kernel: str, tmp_path: Path, compiler: str) -> None:
    values = run_costs(kernel, tmp_path, compiler, 6)
    # The first sixteen threads send to block 0, the next to block 1; from the second time on both hold the mean.
    assert torch.equal(values, (torch.arange(16.0) + 8).repeat(32))


def test_a_ratio_is_of_the_fastest_peer() -> None:
    rows = [
        {"case": "scan-b1-8", "system": "cuda", "value": 2.0},
        {"case": "scan-b1-8", "system": "mamba-ssm", "value": 5.0},
        {"case": "scan-b1-8", "system": "mamba-ssm", "value": 4.0},
        {"case": "b1-d128l4-bf16", "system": "cuda", "value": 10.0},
    ]
    assert cuda_first_run.compare(rows) == [
        {"case": "b1-d128l4-bf16", "peer": "asked: 5.0 us/step", "ratio": 0.5, "target": 1, "met": False},
        {"case": "scan-b1-8", "peer": "mamba-ssm", "ratio": 2.0, "target": 1.5, "met": True},
    ]
