"""Where kernels run: a GPU, or in tests the emulator behind the same contract."""

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from models.mamba2.kernels.contract import BackendUnavailableError
from models.mamba2.kernels.cuda.cache import CubinCache, default_folder
from models.mamba2.kernels.cuda.driver import (
    MAX_DYNAMIC_SHARED_SIZE_BYTES,
    MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
    NON_PORTABLE_CLUSTER_SIZE_ALLOWED,
    Argument,
    Driver,
    current_stream,
)
from models.mamba2.kernels.cuda.nvrtc import Compiled, Nvrtc, compile_cached
from models.mamba2.kernels.cuda.plan import DeviceLimits

OLDEST = (8, 0)
_PORTABLE_CLUSTER = 8
# What a launch may have without asking for more.
_DEFAULT_SHARED_BYTES = 48 << 10


class Program(Protocol):
    """Compiled kernels of one source."""

    def launch(
        self, kernel: str, grid: tuple[int, int], threads: int, shared_bytes: int, arguments: Sequence[Argument]
    ) -> None:
        """Put a kernel behind the others on the device's current stream; returns before it has run."""
        ...

    def resident_clusters(self, kernel: str, cluster: int, threads: int, shared_bytes: int) -> int:
        """Return how many clusters of this shape run at once, 0 if the device cannot run one."""
        ...


class Device(Protocol):
    """A place to run kernels."""

    @property
    def limits(self) -> DeviceLimits:
        """What plans must know."""
        ...

    @property
    def torch_device(self) -> torch.device:
        """Where tensors for the kernels must lie."""
        ...

    def load(self, sources: Sequence[str], defines: Mapping[str, str]) -> Sequence[Program]:
        """Return the kernels of sources of this package, compiled at once with macros; the same for the same call."""
        ...

    def current(self) -> AbstractContextManager[object]:
        """Return a context in which allocations and launches go to this device."""
        ...

    def host_words(self, count: int) -> Tensor:
        """Return int32 zeros that host and running kernels both see."""
        ...

    def mark(self) -> Callable[[], bool]:
        """Return a question: whether all that was launched until now has run."""
        ...

    def wait(self) -> None:
        """Wait until all that was launched on the current stream has run."""
        ...


class CudaProgram:
    """A module in a GPU's context."""

    def __init__(self, driver: Driver, cubin: bytes, device: torch.device, multiprocessors: int) -> None:
        self._driver = driver
        self._device = device
        self._multiprocessors = multiprocessors
        self._module = driver.load(cubin)

    def launch(
        self, kernel: str, grid: tuple[int, int], threads: int, shared_bytes: int, arguments: Sequence[Argument]
    ) -> None:
        """See `Program.launch`."""
        function = self._prepared(kernel, 1, shared_bytes)
        self._driver.launch(function, grid, threads, shared_bytes, current_stream(self._device), arguments)

    def resident_clusters(self, kernel: str, cluster: int, threads: int, shared_bytes: int) -> int:
        """See `Program.resident_clusters`; a cluster above the portable size is allowed to the kernel from here on."""
        function = self._prepared(kernel, cluster, shared_bytes)
        if cluster > 1:
            return self._driver.active_clusters(function, cluster, threads, shared_bytes)
        return self._multiprocessors * self._driver.active_blocks(function, threads, shared_bytes)

    def _prepared(self, kernel: str, cluster: int, shared_bytes: int) -> ctypes.c_void_p:
        function = self._driver.function(self._module, kernel)
        if cluster > _PORTABLE_CLUSTER:
            self._driver.set_attribute(function, NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
        if shared_bytes > _DEFAULT_SHARED_BYTES:
            self._driver.set_attribute(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes)
        return function


class CudaDevice:
    """A GPU that torch can use.

    Args:
        device: the GPU, torch's current one by default.
        cache_folder: where cubins are kept; see `cache.default_folder`.

    Raises:
        BackendUnavailableError: no driver, no GPU, one that is too old, or no compiler for it; the message says which.
    """

    def __init__(self, device: torch.device | None = None, *, cache_folder: Path | None = None) -> None:
        if reason := why_unavailable():
            raise BackendUnavailableError(reason)
        self._driver = Driver()
        self._compiler = Nvrtc()
        self._cache = CubinCache(default_folder() if cache_folder is None else cache_folder)
        index = torch.cuda.current_device() if device is None or device.index is None else device.index
        self.torch_device = torch.device("cuda", index)
        # The driver's calls need a current context; torch makes it with the first tensor.
        try:
            torch.zeros(1, dtype=torch.float32, device=self.torch_device)
        except RuntimeError as error:
            raise BackendUnavailableError(_refusal(error)) from error
        properties = torch.cuda.get_device_properties(self.torch_device)
        self._multiprocessors = properties.multi_processor_count
        self.architecture = f"sm_{properties.major}{properties.minor}"
        shared_bytes = self._driver.device_attribute(self.torch_device.index, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        self.limits = DeviceLimits(shared_bytes=shared_bytes, has_clusters=properties.major >= 9)
        self._programs: dict[tuple[str, tuple[tuple[str, str], ...]], CudaProgram] = {}
        self._lock = threading.Lock()

    def load(self, sources: Sequence[str], defines: Mapping[str, str]) -> list[CudaProgram]:
        """See `Device.load`.

        Raises:
            KernelBuildError: the compiler refused.
        """
        macros = tuple(sorted(defines.items()))
        with self._lock, self.current():
            missing = [source for source in sources if (source, macros) not in self._programs]
            with ThreadPoolExecutor(max(1, len(missing)), "graphtide-nvrtc") as threads:
                compiled = list(threads.map(lambda source: self._compiled(source, defines), missing))
            # Not in the threads of the compiler: a new thread has no current context, which loading needs.
            for source, one in zip(missing, compiled, strict=True):
                self._programs[source, macros] = CudaProgram(
                    self._driver, one.cubin, self.torch_device, self._multiprocessors
                )
            return [self._programs[source, macros] for source in sources]

    def _compiled(self, source: str, defines: Mapping[str, str]) -> Compiled:
        return compile_cached(self._compiler, self._cache, source, self.architecture, defines)

    def load_text(self, text: str, defines: Mapping[str, str]) -> CudaProgram:
        """Return the kernels of a text that is not of this package, for measurements; compiled at each call."""
        with self.current():
            compiled = self._compiler.compile("text.cu", self.architecture, defines, text=text)
            return CudaProgram(self._driver, compiled.cubin, self.torch_device, self._multiprocessors)

    def current(self) -> AbstractContextManager[object]:
        """See `Device.current`."""
        return torch.cuda.device(self.torch_device)

    def host_words(self, count: int) -> Tensor:
        """See `Device.host_words`; pinned memory has one address for host and GPU."""
        return torch.zeros(count, dtype=torch.int32, device="cpu").pin_memory()

    def mark(self) -> Callable[[], bool]:
        """See `Device.mark`."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.torch_device))
        return event.query

    def wait(self) -> None:
        """See `Device.wait`."""
        torch.cuda.current_stream(self.torch_device).synchronize()


def why_unavailable() -> str | None:
    """Return why no GPU can be used in this process, and what would help; None if one can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a torch wheel for CUDA"
    try:
        Driver()
        if not torch.cuda.is_available():
            return "the NVIDIA driver finds no GPU that this torch can use"
        return _why_unsuited(Nvrtc())
    except BackendUnavailableError as error:
        return str(error)
    # Of torch and the driver, where another process holds the GPU for itself or it has failed.
    except (RuntimeError, OSError) as error:
        return _refusal(error)


def _why_unsuited(compiler: Nvrtc) -> str | None:
    """Return why torch's current GPU cannot run the kernels; None if it can."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    number = f"{properties.major}.{properties.minor}"
    if (properties.major, properties.minor) < OLDEST:
        return f"{properties.name} has compute capability {number}; the kernels need 8.0 or later"
    if 10 * properties.major + properties.minor not in compiler.architectures():
        return f"NVRTC {compiler.version} does not know compute capability {number}; a newer torch brings one that does"
    return None


def _refusal(error: Exception) -> str:
    # torch appends advice for its own developers on further lines.
    return f"the GPU cannot be used: {str(error).partition(chr(10))[0]}; see nvidia-smi for what holds it"
