"""What an ingestion does, as Prometheus metrics on a port of this machine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from infra.errors import UsageError
from stream.progress import IngestProgress

if TYPE_CHECKING:
    from stream.sources.kafka.reading import KafkaStatus
    from stream.store.projector import ProjectorStatus

LOOPBACK = "127.0.0.1"
_MICROSECOND_S = 1e-6
_COUNTED = ("events", "late", "rejected", "duplicates", "snapshots", "revisions")


class IngestMetrics:
    """The metrics of one ingestion, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._told = IngestProgress()
        self._partitions: set[str] = set()
        self._counters = {
            name: Counter(f"graphtide_ingest_{name}", f"{name.capitalize()} since the start.", registry=self.registry)
            for name in _COUNTED
        }
        gauge = self._gauge
        self._watermark = gauge("watermark_seconds", "Event time up to which steps have closed, since the epoch.")
        self._event_time = gauge("event_time_seconds", "Largest event time so far, since the epoch.")
        self._lag = gauge("partition_lag_records", "Records that are not read yet.", "partition")
        self._idle = gauge("partition_idle", "1 while nothing comes and steps do not wait.", "partition")
        self._missing = gauge("partition_missing_records", "Offsets that had no record.", "partition")
        self._waiting = gauge("broker_wait_seconds", "How long no broker has answered; 0 while they do.")
        self._unprojected = gauge("projection_waiting_snapshots", "Snapshots that are not in InfluxDB yet.")
        self._failing = gauge("projection_failing_seconds", "How long InfluxDB has not been written; 0 while it is.")
        self._commit = Histogram(
            "graphtide_ingest_commit_seconds", "Time of a commit with all that it computed.", registry=self.registry
        )

    def observe_commit(self, progress: IngestProgress) -> None:
        """Take what a commit has done."""
        for name, counter in self._counters.items():
            counter.inc(getattr(progress, name) - getattr(self._told, name))
        self._told = progress
        self._commit.observe(progress.commit_s)
        if progress.watermark_us is not None:
            self._watermark.set(progress.watermark_us * _MICROSECOND_S)
        if progress.event_time_us is not None:
            self._event_time.set(progress.event_time_us * _MICROSECOND_S)

    def observe_status(self, status: "KafkaStatus", projection: "ProjectorStatus | None") -> None:
        """Take what the source and the projection do now."""
        for partition in status.partitions:
            self._lag.labels(partition.partition).set(partition.lag)
            self._idle.labels(partition.partition).set(partition.idle)
            self._missing.labels(partition.partition).set(partition.missing)
        # Only now, as one may be scraped meanwhile: partitions that another process reads now are its to tell.
        partitions = {partition.partition for partition in status.partitions}
        for gone in self._partitions - partitions:
            for gauge in (self._lag, self._idle, self._missing):
                gauge.remove(gone)
        self._partitions = partitions
        self._waiting.set(status.waiting_s or 0.0)
        if projection is not None:
            self._unprojected.set(projection.waiting)
            self._failing.set(projection.failing_s(time.time()) or 0.0)

    @contextmanager
    def serve(self, port: int, host: str = LOOPBACK) -> Iterator[None]:
        """Serve the metrics at `http://host:port/metrics` meanwhile.

        Raises:
            UsageError: the address is none of this machine, or the port is taken or not this user's.
        """
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise UsageError(
                f"metrics cannot be served on {host} port {port}: {error.strerror or error}",
                fix="choose another --metrics-port, or an address of this machine as --metrics-host",
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"graphtide_ingest_{name}", text, labels, registry=self.registry)
