"""How busy and how full the GPUs are that the service's forecasts run on, read from NVML at a scrape."""

import logging
from collections.abc import Iterable
from types import ModuleType

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)


def open_nvml() -> ModuleType | None:
    """Return NVIDIA's `pynvml`, ready; None without the extra `gpu`, or without a driver."""
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        _log.debug("no GPU is measured: %s", error)
        return None
    return pynvml  # type: ignore[no-any-return]


class GpuMeters(Collector):
    """Gauges of each GPU of this machine; a GPU that cannot be read is left out of the scrape.

    Args:
        nvml: what `open_nvml` returned.
    """

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges as they stand now."""
        busy = GaugeMetricFamily(
            "graphtide_gpu_utilization_ratio", "Share of the last moments in which the GPU computed", labels=["gpu"]
        )
        used = GaugeMetricFamily("graphtide_gpu_memory_used_bytes", "Memory of the GPU in use", labels=["gpu"])
        total = GaugeMetricFamily("graphtide_gpu_memory_bytes", "Memory of the GPU", labels=["gpu"])
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError:
            count = 0
        for number in range(count):
            try:
                gpu = self._nvml.nvmlDeviceGetHandleByIndex(number)
                percent, memory = (
                    self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
                    self._nvml.nvmlDeviceGetMemoryInfo(gpu),
                )
            except self._nvml.NVMLError:
                continue
            label = [str(number)]
            busy.add_metric(label, percent / 100)
            used.add_metric(label, memory.used)
            total.add_metric(label, memory.total)
        yield from (busy, used, total)
