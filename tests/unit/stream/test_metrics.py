import socket
import time
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import Gauge

from infra.errors import UsageError
from stream.metrics import IngestMetrics
from stream.progress import IngestProgress
from stream.sources.kafka.reading import KafkaStatus, PartitionStatus
from stream.store.projector import ProjectorStatus


def status(*partitions: PartitionStatus) -> KafkaStatus:
    return KafkaStatus("a client", partitions, None)


def test_counters_rise_by_what_each_commit_adds() -> None:
    metrics = IngestMetrics()
    metrics.observe_commit(IngestProgress(events=10, late=1, snapshots=2, watermark_us=3_000_000, commit_s=0.5))
    metrics.observe_commit(IngestProgress(events=15, late=1, snapshots=4, watermark_us=7_000_000, commit_s=0.5))
    value = metrics.registry.get_sample_value
    assert value("graphtide_ingest_events_total") == 15
    assert value("graphtide_ingest_late_total") == 1
    assert value("graphtide_ingest_snapshots_total") == 4
    assert value("graphtide_ingest_watermark_seconds") == 7
    assert value("graphtide_ingest_commit_seconds_sum") == 1


def test_a_partition_that_another_process_reads_is_no_longer_told() -> None:
    metrics = IngestMetrics()
    metrics.observe_status(
        status(PartitionStatus("t/0", 5, 7, False, 0, 0), PartitionStatus("t/1", 5, 9, True, 1, 3)), None
    )
    metrics.observe_status(status(PartitionStatus("t/1", 9, 5, True, 1, 3)), None)
    value = metrics.registry.get_sample_value
    assert value("graphtide_ingest_partition_lag_records", {"partition": "t/0"}) is None
    assert value("graphtide_ingest_partition_lag_records", {"partition": "t/1"}) == 5
    assert value("graphtide_ingest_partition_idle", {"partition": "t/1"}) == 1
    assert value("graphtide_ingest_partition_missing_records", {"partition": "t/1"}) == 3


def test_a_scrape_amid_an_update_finds_every_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = IngestMetrics()
    partitions = [PartitionStatus(f"t/{number}", 5, 7, False, 0, 0) for number in range(3)]
    metrics.observe_status(status(*partitions), None)
    scraped: set[float | None] = set()

    def scrape_and_label(gauge: Gauge, *labels: str) -> Gauge:
        for number in (1, 2):
            labels_of_series = {"partition": f"t/{number}"}
            scraped.add(metrics.registry.get_sample_value("graphtide_ingest_partition_lag_records", labels_of_series))
        return label(gauge, *labels)

    label = Gauge.labels
    monkeypatch.setattr(Gauge, "labels", scrape_and_label)
    metrics.observe_status(status(*partitions[1:]), None)
    assert scraped == {7}


def test_an_influxdb_that_is_not_written_is_told_from_one_that_is() -> None:
    metrics = IngestMetrics()
    value = metrics.registry.get_sample_value
    assert value("graphtide_ingest_projection_failing_seconds") == 0
    failing = ProjectorStatus(waiting=3, error="away", down_since_s=time.time() - 60)
    metrics.observe_status(status(), failing)
    assert value("graphtide_ingest_projection_waiting_snapshots") == 3
    assert value("graphtide_ingest_projection_failing_seconds") == pytest.approx(60, abs=30)
    metrics.observe_status(status(), replace(failing, down_since_s=time.time() + 60))  # the clock was set back
    assert value("graphtide_ingest_projection_failing_seconds") == 0
    metrics.observe_status(status(), ProjectorStatus())
    assert value("graphtide_ingest_projection_failing_seconds") == 0


def test_they_are_served_on_loopback_and_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be served"), IngestMetrics().serve(taken.getsockname()[1]):
            pass
        port = taken.getsockname()[1]
    with IngestMetrics().serve(port):
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert "graphtide_ingest_events_total 0.0" in text
