"""The choice of a backend: what is set wrongly is refused, what is not there is passed over, and both are said."""

import logging
from collections.abc import Callable

import pytest
import torch

from models.mamba2.kernels import registry
from models.mamba2.kernels.contract import BackendUnavailableError
from models.mamba2.kernels.cpu import backend as cpu_backend
from models.mamba2.kernels.cuda import device
from models.mamba2.kernels.cuda.backend import CudaBackend
from models.mamba2.kernels.registry import explain, get_backend

WRONG = {"GRAPHTIDE_CPU_ISA": "avx51", "GRAPHTIDE_CPU_THREADS": "two"}
BUSY = "CUDA error: all CUDA-capable devices are busy or unavailable\nCompile with `TORCH_USE_CUDA_DSA` to enable …"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (registry.VARIABLE, *WRONG):
        monkeypatch.delenv(name, raising=False)
    registry._warn_once.cache_clear()


@pytest.fixture
def _compiled(require: Callable[[str, bool, str], None]) -> None:
    reason = cpu_backend.CpuBackend().unavailable()
    require("cpu", reason is None, str(reason))


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_refused_and_no_slower_backend_takes_its_place(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, WRONG[name])
    with pytest.raises(BackendUnavailableError, match=f"backend cpu cannot run here: {name}={WRONG[name]}.*unset it"):
        get_backend()
    assert not any(line.chosen for line in explain())
    assert [line.name for line in explain() if line.is_refused] == ["cpu"]
    # Where another backend is named, the variable has no part in the choice.
    monkeypatch.setenv(registry.VARIABLE, "reference")
    assert get_backend().name == "reference"
    assert [line.name for line in explain() if line.chosen] == ["reference"]
    assert not any(line.is_refused for line in explain())
    assert [line.name for line in explain() if line.is_set_wrongly] == ["cpu"]


def test_a_number_of_threads_too_long_to_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_backend, "_IMPORT_ERROR", None)
    monkeypatch.setenv("GRAPHTIDE_CPU_THREADS", "9" * 5000)
    assert "no number of threads" in str(cpu_backend.CpuBackend().wrong_setting())


def test_a_missing_build_is_passed_over_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu_backend, "_IMPORT_ERROR", ImportError("no _native"))
    # Nothing can say which kernels a build would have.
    monkeypatch.setenv("GRAPHTIDE_CPU_ISA", "avx2")
    with caplog.at_level(logging.WARNING):
        assert [get_backend().name for _ in range(3)] == ["reference"] * 3
        explain()
    (record,) = caplog.records
    assert "the backend reference runs, for want of cpu" in record.getMessage()
    assert "compiler" in record.getMessage()


def test_a_backend_that_answers_with_an_error_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: CudaBackend) -> str | None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(CudaBackend, "unavailable", fail)
    assert explain()[0].reason == "unavailable: it cannot be used (no luck)"
    with pytest.raises(BackendUnavailableError, match="no luck"):
        get_backend("cuda")


def test_a_gpu_that_another_process_holds_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy() -> int:
        raise RuntimeError(BUSY)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", busy)
    monkeypatch.setattr(device, "Driver", object)
    monkeypatch.setattr(device, "Nvrtc", object)
    reason = device.why_unavailable()
    assert reason == f"the GPU cannot be used: {BUSY.splitlines()[0]}; see nvidia-smi for what holds it"
    assert explain()[0].reason == f"unavailable: {reason}"
    with pytest.raises(BackendUnavailableError, match="busy"):
        get_backend("cuda")
