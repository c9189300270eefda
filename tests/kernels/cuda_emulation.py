"""The CUDA kernels behind the contract of a device, run by g++ and `cuda_emulator.h` instead of a GPU."""

import ctypes
import hashlib
import itertools
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from models.mamba2.kernels.cuda.driver import Argument, pack_arguments
from models.mamba2.kernels.cuda.nvrtc import SOURCES
from models.mamba2.kernels.cuda.plan import DeviceLimits

KERNELS = {
    "rollout.cu": ("rollout",),
    "products.cu": ("embed", "project_in", "project_out", "read_out"),
    "scan.cu": ("convolve", "add_chunks", "pass_states", "read_chunks"),
}
OPTIONS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-unknown-pragmas", "-w")
GUARD_WORDS = 16
HOPPER = DeviceLimits(shared_bytes=227 << 10, has_clusters=True)
AMPERE = DeviceLimits(shared_bytes=163 << 10, has_clusters=False)


class EmulationError(AssertionError):
    """The emulator found something that no correct kernel does."""


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid_x", ctypes.c_uint),
        ("grid_y", ctypes.c_uint),
        ("threads", ctypes.c_uint),
        ("cluster", ctypes.c_uint),
        ("shared_bytes", ctypes.c_uint),
        ("order", ctypes.c_uint64),
    )


def build(folder: Path, compiler: str, source: Path, defines: Mapping[str, str], kernels: Sequence[str]) -> ctypes.CDLL:
    """Compile a source for the emulator; the same text and macros are compiled once."""
    lines = [f"#define {name} {value}" for name, value in sorted(defines.items())]
    lines += ["#define GRAPHTIDE_EMULATED", f'#include "{source}"', *(f"EMULATED({kernel})" for kernel in kernels)]
    text = "\n".join(lines) + "\n"
    name = hashlib.sha256((text + source.read_text()).encode()).hexdigest()[:24]
    library = folder / f"{name}.so"
    if not library.exists():
        wrapper = folder / f"{name}.cpp"
        wrapper.write_text(text)
        includes = (f"-I{Path(__file__).parent}", f"-I{SOURCES}")
        command = (compiler, *OPTIONS, *includes, str(wrapper), "-o", str(library))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def run_kernel(
    library: ctypes.CDLL,
    kernel: str,
    grid: tuple[int, int],
    threads: int,
    shared_bytes: int,
    arguments: Sequence[Argument],
    *,
    cluster: int = 1,
    order: int = 0,
) -> None:
    """Run a kernel to its end, on guarded copies of its tensors.

    Raises:
        EmulationError: the emulator found a race, a deadlock or the like, or a guard was written.
    """
    copies: dict[int, tuple[Tensor, Tensor]] = {}
    passed: list[Argument] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            assert argument.is_contiguous()
            # The same memory given twice stays the same memory.
            key = argument.data_ptr() if argument.numel() else -len(copies) - 1
            if key not in copies:
                copies[key] = (argument, _guarded(argument))
            passed.append(copies[key][1][GUARD_WORDS:])
        else:
            passed.append(argument)
    values, pointers = pack_arguments(passed)
    how = _Launch(*grid, threads, cluster, shared_bytes, order)
    findings = ctypes.create_string_buffer(4096)
    failed = getattr(library, f"emulate_{kernel}")(
        ctypes.byref(how), pointers, findings, ctypes.c_size_t(len(findings))
    )
    del values
    if failed:
        raise EmulationError(f"{kernel}: {findings.value.decode()}")
    for argument, copy in copies.values():
        guards = torch.cat([copy[:GUARD_WORDS], copy[len(copy) - GUARD_WORDS :]])
        if not torch.equal(guards.view(torch.uint8), torch.full_like(guards.view(torch.uint8), 0xFF)):
            raise EmulationError(f"{kernel} writes outside a tensor of shape {tuple(argument.shape)}")
        argument.copy_(copy[GUARD_WORDS : GUARD_WORDS + argument.numel()].view(argument.shape))


def _guarded(tensor: Tensor) -> Tensor:
    """Return a flat copy between guards of bytes 0xFF, which are NaN as floats and -1 as integers."""
    size = (tensor.numel() + 2 * GUARD_WORDS) * tensor.element_size()
    copy = torch.full((size,), 0xFF, dtype=torch.uint8, device="cpu").view(tensor.dtype)
    copy[GUARD_WORDS : GUARD_WORDS + tensor.numel()] = tensor.flatten()
    return copy


class EmulatedProgram:
    def __init__(self, library: ctypes.CDLL, cluster: int, device: "EmulatedDevice") -> None:
        self._library = library
        self._cluster = cluster
        self._device = device

    def launch(
        self, kernel: str, grid: tuple[int, int], threads: int, shared_bytes: int, arguments: Sequence[Argument]
    ) -> None:
        self._device.launches.append(kernel)
        cluster = self._cluster if kernel == "rollout" else 1
        order = next(self._device.orders)
        run_kernel(self._library, kernel, grid, threads, shared_bytes, arguments, cluster=cluster, order=order)

    def resident_clusters(self, kernel: str, cluster: int, threads: int, shared_bytes: int) -> int:
        return self._device.resident_clusters


class EmulatedDevice:
    """A device of the emulator; every launch runs its threads in another order."""

    torch_device = torch.device("cpu")

    def __init__(
        self, folder: Path, compiler: str, *, limits: DeviceLimits = HOPPER, resident_clusters: int = 1
    ) -> None:
        self._folder = folder
        self._compiler = compiler
        self.limits = limits
        self.resident_clusters = resident_clusters
        self.launches: list[str] = []
        self.orders = itertools.count()

    def load(self, sources: Sequence[str], defines: Mapping[str, str]) -> list[EmulatedProgram]:
        cluster = int(defines.get("CLUSTER", "1"))
        libraries = [build(self._folder, self._compiler, SOURCES / name, defines, KERNELS[name]) for name in sources]
        return [EmulatedProgram(library, cluster, self) for library in libraries]

    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def host_words(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.int32, device="cpu")

    def mark(self) -> Callable[[], bool]:
        return lambda: True

    def wait(self) -> None:
        pass
