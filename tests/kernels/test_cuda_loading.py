"""How compiled kernels come onto a GPU, as far as it can be seen without one."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.cuda import backend as backend_module
from models.mamba2.kernels.cuda import device as device_module
from models.mamba2.kernels.cuda.backend import CudaBackend
from models.mamba2.kernels.cuda.device import CudaDevice
from models.mamba2.kernels.cuda.nvrtc import Compiled
from tests.kernels.cuda_emulation import HOPPER
from tests.kernels.stacks import make_weights


class Module:
    """Stands for a loaded module; knows which thread loaded it."""

    def __init__(self, _driver: object, cubin: bytes, *_limits: object) -> None:
        self.cubin, self.thread = cubin, threading.current_thread()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    both = threading.Barrier(2, timeout=60)

    def compile_at_once(_compiler: object, _cache: object, source: str, *_options: object) -> Compiled:
        if source != "alone.cu":
            both.wait()
        return Compiled(source.encode(), "")

    monkeypatch.setattr(device_module, "CudaProgram", Module)
    monkeypatch.setattr(device_module, "compile_cached", compile_at_once)
    monkeypatch.setattr(CudaDevice, "current", lambda _self: nullcontext())
    found = object.__new__(CudaDevice)
    found.torch_device, found.architecture = torch.device("cuda", 0), "sm_90"
    found._driver = found._compiler = found._cache = found._multiprocessors = None
    found._programs, found._lock = {}, threading.Lock()
    return found


def test_sources_compile_at_once_and_load_where_there_is_a_context(device: CudaDevice) -> None:
    defines: Mapping[str, str] = {"WIDTH": "8"}
    loaded: Sequence[Any] = device.load(("one.cu", "two.cu"), defines)
    assert [module.cubin for module in loaded] == [b"one.cu", b"two.cu"]
    # A thread of the compiler has no current context, which the driver needs to load a module.
    assert {module.thread for module in loaded} == {threading.current_thread()}
    assert device.load(("two.cu", "alone.cu"), defines)[0] is loaded[1]


def test_stacks_share_a_gpu_and_what_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    class Gpu:
        limits, torch_device = HOPPER, torch.device("cpu")

        def __init__(self, device: torch.device) -> None:
            asked.append(device)

        def current(self) -> AbstractContextManager[object]:
            return nullcontext()

    monkeypatch.setattr(backend_module, "why_unavailable", lambda: None)
    monkeypatch.setattr(backend_module, "CudaDevice", Gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    backend_module._gpu.cache_clear()
    try:
        # `get_backend` makes a backend for every model that is loaded, and nothing unloads a module.
        for _ in range(2):
            CudaBackend().pack(make_weights(Mamba2Config(d_model=8, n_layers=1, headdim=8)))
    finally:
        backend_module._gpu.cache_clear()
    assert asked == [torch.device("cuda", 1)]
