"""The `cuda` backend: see `models.mamba2.kernels.contract`."""

import functools

import torch

from models.mamba2.kernels.contract import BackendUnavailableError, StackWeights, check_precision
from models.mamba2.kernels.cuda.device import CudaDevice, Device, why_unavailable
from models.mamba2.kernels.cuda.stack import CudaStack


class CudaBackend:
    """Own kernels on an NVIDIA GPU.

    Args:
        device: where stacks run; torch's current GPU at the time of packing by default.
    """

    name = "cuda"

    def __init__(self, device: Device | None = None) -> None:
        self._device = device

    def unavailable(self) -> str | None:
        """See `contract.Backend.unavailable`."""
        return None if self._device is not None else why_unavailable()

    def wrong_setting(self) -> str | None:
        """Return None: its one variable names a cache, which costs time at worst."""
        return None

    def pack(self, weights: StackWeights, precision: str = "fp32") -> CudaStack:
        """See `contract.Backend.pack`; int8 has the numbers of int8 and the speed of fp32 here."""
        check_precision(precision)
        weights.validate()
        if reason := self.unavailable():
            raise BackendUnavailableError(f"backend cuda cannot run here: {reason}")
        return CudaStack(weights, precision, self._device or _gpu(torch.cuda.current_device()))


@functools.cache
def _gpu(index: int) -> CudaDevice:
    """Return a GPU, one for all stacks of the process: modules stay loaded, so that each must be loaded only once."""
    return CudaDevice(torch.device("cuda", index))
