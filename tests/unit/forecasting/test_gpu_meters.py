"""Meters of the GPUs: what NVML says, and nothing where it says nothing. The library is real, its answers are not."""

from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from forecasting.api.gpu_meters import GpuMeters, open_nvml


def scraped() -> list[str]:
    registry = CollectorRegistry()
    registry.register(GpuMeters(pynvml))
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_without_a_driver_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    assert open_nvml() is None


def test_each_gpu_that_can_be_read_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def rates(gpu: int) -> SimpleNamespace:
        if gpu == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(gpu=73, memory=10)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: number)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(used=2**30 * (gpu + 1), total=2**33)
    )
    assert open_nvml() is pynvml
    assert scraped() == [
        'graphtide_gpu_utilization_ratio{gpu="0"} 0.73',
        'graphtide_gpu_utilization_ratio{gpu="2"} 0.73',
        'graphtide_gpu_memory_used_bytes{gpu="0"} 1.073741824e+09',
        'graphtide_gpu_memory_used_bytes{gpu="2"} 3.221225472e+09',
        'graphtide_gpu_memory_bytes{gpu="0"} 8.589934592e+09',
        'graphtide_gpu_memory_bytes{gpu="2"} 8.589934592e+09',
    ]


def test_a_driver_that_is_lost_leaves_a_scrape_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", fails)
    assert scraped() == []
