"""What is measured at the moment of a scrape: how old the data are, and how long the queues."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from stream.store.base import GraphInfo


class Scraped(Collector):
    """Gauges that nobody sets: they are read at a scrape, so that they go on while nobody calls the service.

    Args:
        graphs: returns the catalog as it was last read.
        file: of the service, with its queues; they are left out of a scrape while it cannot be read.
    """

    def __init__(self, graphs: Callable[[], Mapping[str, GraphInfo]], file: ServiceFile) -> None:
        self._graphs = graphs
        self._file = file

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges as they stand now."""
        yield from self._of_graphs(time.time())
        yield from self._of_queues()

    def _of_graphs(self, now_s: float) -> Iterable[Metric]:
        age = GaugeMetricFamily("graphtide_data_age_seconds", "Age of the last observed step's end", labels=["graph"])
        step = GaugeMetricFamily("graphtide_step_seconds", "Length of a step", labels=["graph"])
        for info in self._graphs().values():
            step.add_metric([info.name], info.step_us / 1e6)
            if info.last_step_us is not None:
                age.add_metric([info.name], max(0.0, now_s - (info.last_step_us + info.step_us) / 1e6))
        yield age
        yield step

    def _of_queues(self) -> Iterable[Metric]:
        length = GaugeMetricFamily("graphtide_jobs", "Jobs of the service's file", labels=["kind", "status"])
        oldest = GaugeMetricFamily(
            "graphtide_job_wait_seconds", "How long the first of the queue has waited", labels=["kind"]
        )
        queues: tuple[tuple[str, Literal["jobs", "reports"]], ...] = (("forecast", "jobs"), ("report", "reports"))
        for kind, queue in queues:
            try:
                found = self._file.waiting(queue)
            except StoreError:
                continue
            length.add_metric([kind, "queued"], found.queued)
            length.add_metric([kind, "running"], found.running)
            oldest.add_metric([kind], found.oldest_s)
        yield length
        yield oldest
