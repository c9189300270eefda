"""The emulator finds the mistakes that it is there to find, also in the real kernels."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cuda_emulation import KERNELS, EmulatedDevice, EmulationError, build, run_kernel
from test_cuda_emulated import CASES

from models.mamba2.kernels.cuda import nvrtc

FAULTS = r"""
#include "portability.cuh"

KERNEL(64) sound(float* out) {
    const Shared<float> words = shared_memory<float>(0);
    words[threadIdx.x] = out[threadIdx.x];
    block_barrier();
    out[threadIdx.x] = words[63 - threadIdx.x];
}
KERNEL(64) missing_barrier(float* out) {
    const Shared<float> words = shared_memory<float>(0);
    words[threadIdx.x] = 1.0f;
    out[threadIdx.x] = words[63 - threadIdx.x];
}
KERNEL(64) write_after_read(float* out) {
    const Shared<float> words = shared_memory<float>(0);
    words[threadIdx.x] = 1.0f;
    block_barrier();
    out[threadIdx.x] = words[63 - threadIdx.x];
    words[threadIdx.x] = 2.0f;
}
KERNEL(64) divergent_barrier(float* out) {
    if (threadIdx.x < 32)
        block_barrier();
    else
        block_barrier();
    out[threadIdx.x] = 0.0f;
}
KERNEL(64) absent_threads(float* out) {
    if (threadIdx.x < 32) block_barrier();
    out[threadIdx.x] = 0.0f;
}
KERNEL(64) absent_lanes(float* out) {
    if (threadIdx.x % 32 < 16) out[threadIdx.x] = shuffle_xor(1.0f, 1);
}
KERNEL(64) unwritten(float* out) { out[threadIdx.x] = shared_memory<float>(0)[threadIdx.x]; }
KERNEL(64) out_of_shared(float*) { shared_memory<float>(0)[64 + threadIdx.x] = 1.0f; }
KERNEL(64) out_of_tensor(float* out) { out[64 + threadIdx.x % 4] = 1.0f; }
KERNEL(64) block_barrier_for_cluster(float* out) {
    const Shared<float> words = shared_memory<float>(0);
    store_remote(words, threadIdx.x, 1 - cluster_rank(), 1.0f);
    block_barrier();
    out[threadIdx.x] = words[threadIdx.x];
}
KERNEL(64) sound_cluster(float* out) {
    const Shared<float> words = shared_memory<float>(0);
    store_remote(words, threadIdx.x, 1 - cluster_rank(), static_cast<float>(cluster_rank()));
    cluster_barrier();
    out[threadIdx.x + 64 * cluster_rank()] = words[threadIdx.x];
}
"""

FOUND = {
    "missing_barrier": "race: ",
    "write_after_read": "race: read and write",
    "divergent_barrier": "divergent block barrier",
    "absent_threads": "deadlock: 32 of 64 threads",
    "absent_lanes": "deadlock: 16 of 32 threads",
    "unwritten": "read before it is written",
    "out_of_shared": "shared memory of 256 bytes is touched at byte",
    "out_of_tensor": "writes outside a tensor",
    "block_barrier_for_cluster": "race: write",
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory, compiler: str) -> object:
    source = tmp_path_factory.mktemp("faults") / "faults.cu"
    source.write_text(FAULTS)
    return build(source.parent, compiler, source, {}, ["sound", "sound_cluster", *FOUND])


@pytest.mark.parametrize("kernel", FOUND)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_planted_fault_is_found(faults: object, kernel: str, order: int) -> None:
    cluster = 2 if kernel == "block_barrier_for_cluster" else 1
    with pytest.raises(EmulationError, match=FOUND[kernel]):
        run_kernel(faults, kernel, (cluster, 1), 64, 256, [torch.zeros(64)], cluster=cluster, order=order)


def test_sound_kernels_pass(faults: object) -> None:
    words = torch.arange(64.0)
    run_kernel(faults, "sound", (1, 1), 64, 256, [words])
    assert torch.equal(words, torch.arange(63.0, -1, -1))
    both = torch.zeros(128)
    run_kernel(faults, "sound_cluster", (2, 1), 64, 256, [both], cluster=2)
    assert torch.equal(both, torch.tensor([1.0] * 64 + [0.0] * 64))


# A barrier of the real kernels, by the line that it follows, and what its loss is found as.
LOST = {
    "in_proj read before it is written": ("rollout.cu", "project_in(memory, slice.weights + offset);\n", "block"),
    "B and C read before they come": ("rollout.cu", "convolve(memory, slice, layer);\n", "cluster"),
    "product read before its tile is there": ("gemm.cuh", "w_next[load];\n            }\n", "block"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_barrier_taken_from_the_real_kernels_is_missed(
    name: str, tmp_path: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before, kind = LOST[name]
    sources = tmp_path / "cuda"
    shutil.copytree(nvrtc.SOURCES, sources, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    text = (sources / file).read_text()
    at = text.index(f"{kind}_barrier();", text.index(before))
    assert text[text.index(before) + len(before) : at].strip() == ""
    # A cluster barrier also holds the block together: leave that part, so that only the exchange is unguarded.
    other = "block_barrier();" if kind == "cluster" else ""
    (sources / file).write_text(text[:at] + other + text[at + len(f"{kind}_barrier();") :])
    monkeypatch.setattr("cuda_emulation.SOURCES", sources)
    case = CASES["groups-across-blocks"]
    stack = case.on(EmulatedDevice(tmp_path, compiler))
    run: Callable[..., object] = stack.prefill if file == "gemm.cuh" else stack.rollout
    with pytest.raises(EmulationError, match="race"):
        run(case.inputs(1, 3), case.state(1))


def test_every_kernel_of_the_sources_is_emulated() -> None:
    texts = nvrtc.source_texts()
    for source, kernels in KERNELS.items():
        for kernel in kernels:
            assert f" {kernel}(" in texts[source]
