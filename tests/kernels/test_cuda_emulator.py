"""The emulator finds the mistakes that it is there to find, also in the real kernels."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.mamba2.kernels.cuda import nvrtc
from tests.kernels.cuda_emulation import KERNELS, EmulatedDevice, EmulationError, build, run_kernel
from tests.kernels.test_cuda_emulated import CASES

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


def build_text(folder: Path, compiler: str, text: str, defines: dict[str, str], kernels: list[str]) -> object:
    source = folder / "planted.cu"
    source.write_text(text)
    return build(folder, compiler, source, defines, kernels)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory, compiler: str) -> object:
    return build_text(tmp_path_factory.mktemp("faults"), compiler, FAULTS, {}, ["sound", "sound_cluster", *FOUND])


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


# Four blocks exchange values, step by step: each thread stores into one block, and reads what came from every block.
# Two buffers and two counters by turns: between two uses of one lie a whole exchange on the other, and a block barrier.
EXCHANGES = r"""
#include "portability.cuh"

enum Fault { FAULTS };

KERNEL(64) exchange(float* out, int fault) {
    const Shared<float> received[2] = {shared_memory<float>(0), shared_memory<float>(fault == one_buffer ? 0 : 256)};
    const int place = fault == misaligned ? 516 : fault == outside ? 528 : 520;
    const Arrivals arrivals[2] = {{512}, {fault == one_counter ? 512 : place}};
    const int thread = threadIdx.x, lane = fault == two_to_a_word ? thread % 16 / 2 * 2 : thread % 16;
    const int bytes = fault == too_few_bytes ? 128 : fault == too_many_bytes ? 260 : 256;
    if (thread == 0)
        for (int slot = 0; slot < (fault == one_counter ? 1 : 2); ++slot) {
            if (fault != unprepared || slot == 0) prepare_arrivals(arrivals[slot]);
            if (fault != unexpected) expect_arrivals(arrivals[slot], bytes);
            if (fault == prepared_twice) prepare_arrivals(arrivals[slot]);
            if (fault == expected_twice) expect_arrivals(arrivals[slot], bytes);
        }
    if (fault == prepared_late)
        block_barrier();
    else
        cluster_barrier();
    float value = out[cluster_rank() * 64 + thread];
    for (int step = 0; step < 6; ++step) {
        const int slot = step % 2, parity = fault == one_counter ? step % 2 : step / 2 % 2;
        store_remote(received[slot], cluster_rank() * 16 + lane, thread / 16, value, arrivals[slot]);
        if (fault == one_thread_waits || fault == barrier_behind_the_wait) {
            if (thread == 0) wait_arrivals(arrivals[slot], parity);
            if (fault == barrier_behind_the_wait) block_barrier();
        } else if (fault != no_wait || step != 4) {
            wait_arrivals(arrivals[slot], fault == wrong_parity ? 1 - parity : parity);
        }
        value = 0.0f;
        for (int block = 0; block < 4; ++block) value += received[slot][block * 16 + lane];
        if (fault == data_on_a_counter && thread == 0) shared_memory<float>(512)[0] = 1.0f;
        if (thread == 0 && fault != unexpected) expect_arrivals(arrivals[slot], bytes);
        if (fault != no_barrier) block_barrier();
    }
    if (fault == left_open || (fault == left_half_open && cluster_rank() < 2))
        store_remote(received[0], cluster_rank() * 16 + lane, thread / 16, value, arrivals[0]);
    out[cluster_rank() * 64 + thread] = value;
}
"""

SOUND = ("sound", "barrier_behind_the_wait")
FOUND_IN_EXCHANGES = {
    "no_wait": "race: ",
    "wrong_parity": "race: |deadlock: |read before it is written",
    "unexpected": r"deadlock: phase 0 at byte 512 of block \d was not expected, 256 bytes have arrived, line \d+ waits",
    "too_many_bytes": r"deadlock: 256 of 260 expected bytes have arrived in phase 0 at byte 512 of block \d, line \d+",
    "too_few_bytes": "stores for phase .* with nothing that tells it that the phase before has ended",
    "one_buffer": "race: writes",
    "one_counter": "stores for phase .* with nothing that tells it that the phase before has ended",
    "one_thread_waits": "race: write and read",
    "no_barrier": "race: ",
    "two_to_a_word": "race: writes",
    "unprepared": r"arrivals at byte 520 of block \d are used and were not prepared",
    "prepared_late": "no barrier behind their preparation|were not prepared",
    "prepared_twice": "are prepared twice",
    "expected_twice": "is expected twice",
    "misaligned": "arrivals at byte 516 are misaligned or outside",
    "outside": "arrivals at byte 528 are misaligned or outside",
    "data_on_a_counter": "holds arrivals",
    "left_open": "exchange left open: nobody waited for the 256 bytes",
    "left_half_open": "exchange left open: 128 of 256 expected bytes have arrived in phase 3",
}


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory, compiler: str) -> object:
    defines = {"FAULTS": ", ".join((*SOUND, *FOUND_IN_EXCHANGES))}
    return build_text(tmp_path_factory.mktemp("exchanges"), compiler, EXCHANGES, defines, ["exchange"])


def exchange(library: object, fault: str, order: int) -> Tensor:
    values = torch.arange(256.0)
    number = (*SOUND, *FOUND_IN_EXCHANGES).index(fault)
    run_kernel(library, "exchange", (4, 1), 64, 528, [values, number], cluster=4, order=order)
    return values


@pytest.mark.parametrize("fault", FOUND_IN_EXCHANGES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_fault_of_counted_stores_is_found(exchanges: object, fault: str, order: int) -> None:
    with pytest.raises(EmulationError, match=FOUND_IN_EXCHANGES[fault]):
        exchange(exchanges, fault, order)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("order", range(8))
def test_sound_exchanges_pass(exchanges: object, name: str, order: int) -> None:
    values = torch.arange(256.0).view(4, 4, 16)
    for _ in range(6):
        values = values.sum(0).unsqueeze(1).expand(4, 4, 16)
    assert torch.equal(exchange(exchanges, name, order).view(4, 4, 16), values)


# What holds the real kernels together, and what stands in its place when it is lost.
LOST = {
    "x, dt and z read before they are there": ("rollout.cu", "            if (CLUSTER > 1) block_barrier();\n", ""),
    "B and C read before they come": ("rollout.cu", "            exchanges.maps.wait();\n", ""),
    "partial sums read before they come": ("rollout_steps.cuh", "    exchanges.partials.wait();\n", ""),
    "stream read before it comes": ("rollout_steps.cuh", "turn ^= 1;\n    exchanges.stream.wait();\n", "turn ^= 1;\n"),
    "window moved on before all have read it": ("rollout_steps.cuh", "        warp_barrier();\n", ""),
    "product read before its tile is there": (
        "gemm.cuh",
        "w_next[load];\n            }\n            block_barrier();\n",
        "w_next[load];\n            }\n",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_taken_from_the_real_kernels_is_missed(
    name: str, tmp_path: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, held, instead = LOST[name]
    sources = tmp_path / "cuda"
    shutil.copytree(nvrtc.SOURCES, sources, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    text = (sources / file).read_text()
    assert text.count(held) == 1
    (sources / file).write_text(text.replace(held, instead))
    monkeypatch.setattr("tests.kernels.cuda_emulation.SOURCES", sources)
    case = CASES["rows-of-several-lanes"]
    stack = case.on(EmulatedDevice(tmp_path, compiler))
    run: Callable[..., object] = stack.prefill if file == "gemm.cuh" else stack.rollout
    with pytest.raises(EmulationError, match="race"):
        run(case.inputs(1, 3), case.state(1))


def test_every_kernel_of_the_sources_is_emulated() -> None:
    found = {
        source: tuple(dict.fromkeys(re.findall(r"^\w*KERNEL(?:\(\w+\))? (\w+)\(", text, re.MULTILINE)))
        for source, text in nvrtc.source_texts().items()
        if source.endswith(".cu")
    }
    assert found == KERNELS
