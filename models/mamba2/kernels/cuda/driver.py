"""The few calls of the CUDA driver that a launch needs, by way of ctypes; contexts, memory and streams are torch's."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from models.mamba2.kernels.contract import BackendUnavailableError

# From cuda.h: CUfunction_attribute, CUdevice_attribute, CUlaunchAttributeID, CUresult.
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14
MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
CLUSTER_DIMENSION = 4
INVALID_CLUSTER_SIZE = 912

Argument = Tensor | int | ctypes.c_longlong | None


class CudaError(RuntimeError):
    """The driver refused a call; the message says which and why."""


class _ClusterAttribute(ctypes.Structure):
    """CUlaunchAttribute, cuda.h, with the member of its 64-byte union that says the size of a cluster."""

    _fields_ = (
        ("identifier", ctypes.c_int),
        ("padding", ctypes.c_char * 4),
        ("x", ctypes.c_uint),
        ("y", ctypes.c_uint),
        ("z", ctypes.c_uint),
        ("rest", ctypes.c_char * 52),
    )


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig, cuda.h."""

    _fields_ = (
        ("grid_x", ctypes.c_uint),
        ("grid_y", ctypes.c_uint),
        ("grid_z", ctypes.c_uint),
        ("block_x", ctypes.c_uint),
        ("block_y", ctypes.c_uint),
        ("block_z", ctypes.c_uint),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("attribute_count", ctypes.c_uint),
    )


class Driver:
    """The driver library.

    Raises:
        BackendUnavailableError: no driver is installed.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise BackendUnavailableError(f"there is no NVIDIA driver ({error})") from error

    def device_attribute(self, index: int, attribute: int) -> int:
        """Return an attribute of the GPU that torch calls `index`."""
        device, value = ctypes.c_int(), ctypes.c_int()
        self._check("cuDeviceGet", self._library.cuDeviceGet(ctypes.byref(device), index))
        status = self._library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        self._check("cuDeviceGetAttribute", status)
        return value.value

    def load(self, cubin: bytes) -> ctypes.c_void_p:
        """Load a module into the current context."""
        module = ctypes.c_void_p()
        self._check("cuModuleLoadData", self._library.cuModuleLoadData(ctypes.byref(module), cubin))
        return module

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        """Return a kernel of a module."""
        function = ctypes.c_void_p()
        status = self._library.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
        self._check("cuModuleGetFunction", status)
        return function

    def set_attribute(self, function: ctypes.c_void_p, attribute: int, value: int) -> None:
        """Set an attribute of a kernel."""
        self._check("cuFuncSetAttribute", self._library.cuFuncSetAttribute(function, attribute, value))

    def active_clusters(self, function: ctypes.c_void_p, cluster: int, threads: int, shared_bytes: int) -> int:
        """Return how many clusters the GPU holds at once; 0 if it can hold none."""
        count = ctypes.c_int()
        attribute = _ClusterAttribute(CLUSTER_DIMENSION, b"", cluster, 1, 1)
        place = ctypes.cast(ctypes.pointer(attribute), ctypes.c_void_p)
        config = _LaunchConfig(cluster, 1, 1, threads, 1, 1, shared_bytes, None, place, 1)
        status = self._library.cuOccupancyMaxActiveClusters(ctypes.byref(count), function, ctypes.byref(config))
        if status == INVALID_CLUSTER_SIZE:
            return 0
        self._check("cuOccupancyMaxActiveClusters", status)
        return count.value

    def active_blocks(self, function: ctypes.c_void_p, threads: int, shared_bytes: int) -> int:
        """Return how many blocks a multiprocessor holds at once."""
        count = ctypes.c_int()
        status = self._library.cuOccupancyMaxActiveBlocksPerMultiprocessor(
            ctypes.byref(count), function, ctypes.c_int(threads), ctypes.c_size_t(shared_bytes)
        )
        self._check("cuOccupancyMaxActiveBlocksPerMultiprocessor", status)
        return count.value

    def launch(
        self,
        function: ctypes.c_void_p,
        grid: tuple[int, int],
        threads: int,
        shared_bytes: int,
        stream: int,
        arguments: Sequence[Argument],
    ) -> None:
        """Put a kernel on a stream."""
        _, pointers = pack_arguments(arguments)
        status = self._library.cuLaunchKernel(
            function,
            *(ctypes.c_uint(size) for size in (*grid, 1, threads, 1, 1, shared_bytes)),
            ctypes.c_void_p(stream),
            pointers,
            None,
        )
        self._check("cuLaunchKernel", status)

    def _check(self, call: str, status: int) -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(status, ctypes.byref(text))
        raise CudaError(f"{call} failed: {(text.value or b'unknown error').decode()} ({status})")


def pack_arguments(arguments: Sequence[Argument]) -> tuple[list[object], ctypes.Array[ctypes.c_void_p]]:
    """Return the values of kernel arguments and the array of their addresses; keep both until the call is made.

    A tensor becomes its address, None a null address, an int a C int; what is a ctypes value already stays it.
    """
    values: list[ctypes.c_void_p | ctypes.c_int | ctypes.c_longlong] = []
    for argument in arguments:
        if argument is None or isinstance(argument, Tensor):
            values.append(ctypes.c_void_p(None if argument is None else argument.data_ptr()))
        elif isinstance(argument, int):
            values.append(ctypes.c_int(argument))
        else:
            values.append(argument)
    addresses = [ctypes.addressof(value) for value in values]
    return [*values], (ctypes.c_void_p * len(addresses))(*addresses)


def current_stream(device: torch.device) -> int:
    """Return the handle of torch's current stream."""
    handle: int = torch.cuda.current_stream(device).cuda_stream
    return handle
