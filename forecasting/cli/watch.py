"""The live display of an ingestion that goes on: a small table on a terminal, a plain line now and then elsewhere."""

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from forecasting.cli.call import say
from forecasting.cli.progress import LINE_INTERVAL_S
from infra.steps import format_time

if TYPE_CHECKING:
    from forecasting.ingestion import Ingestion
    from stream.metrics import IngestMetrics
    from stream.progress import IngestProgress
    from stream.sources.kafka.reading import KafkaStatus

_TERMINAL_INTERVAL_S = 0.25
_METRICS_INTERVAL_S = 1.0
# Over so long the rate is taken, so that it tells what happens now.
_RATE_WINDOW_S = 5.0


class Watch:
    """Shows how an ingestion goes, and serves it as metrics; a context manager.

    Everything is called from the thread of the ingestion.

    Args:
        title: what is being done.
        metrics_port: serve Prometheus metrics on this port; None for not.
        metrics_host: address for them, in the place of the loopback address.
    """

    def __init__(self, title: str, *, metrics_port: int | None = None, metrics_host: str | None = None) -> None:
        self._title = title
        self._metrics_port = metrics_port
        self._metrics_host = metrics_host
        self._stack = ExitStack()
        self._live: Live | None = None
        self._running: Ingestion | None = None
        self._status: KafkaStatus | None = None
        self._progress: IngestProgress | None = None
        self._committed_s: float | None = None
        self._shown_s = time.monotonic()
        self._measured_s = 0.0
        # (when, events) of the last commits, oldest first.
        self._history: list[tuple[float, int]] = [(time.monotonic(), 0)]
        self._metrics: IngestMetrics | None = None

    def __enter__(self) -> Self:
        if self._metrics_port is not None:
            from stream.metrics import LOOPBACK, IngestMetrics  # noqa: PLC0415 - only who asks waits for its import

            self._metrics = IngestMetrics()
            self._stack.enter_context(self._metrics.serve(self._metrics_port, self._metrics_host or LOOPBACK))
        if sys.stderr.isatty():
            live = Live(console=Console(stderr=True), transient=True, refresh_per_second=4)
            self._live = self._stack.enter_context(live)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def opened(self, running: "Ingestion") -> None:
        """Be told of the ingestion that is about to run."""
        self._running = running

    def polled(self, status: "KafkaStatus") -> None:
        """Be told what the source does, often."""
        self._status = status
        now_s = time.monotonic()
        if self._metrics is not None and now_s - self._measured_s >= _METRICS_INTERVAL_S:
            self._measured_s = now_s
            projector = None if self._running is None else self._running.projector
            self._metrics.observe_status(status, None if projector is None else projector.status())
        self._show()

    def committed(self, progress: "IngestProgress") -> None:
        """Be told of a commit."""
        now_s = time.monotonic()
        self._progress, self._committed_s = progress, now_s
        if self._metrics is not None:
            self._metrics.observe_commit(progress)
        self._history.append((now_s, progress.events))
        while len(self._history) > 2 and self._history[1][0] < now_s - _RATE_WINDOW_S:
            self._history.pop(0)
        self._show()

    def _show(self) -> None:
        now_s = time.monotonic()
        interval_s = LINE_INTERVAL_S if self._live is None else _TERMINAL_INTERVAL_S
        if now_s - self._shown_s < interval_s:
            return
        self._shown_s = now_s
        facts = self._facts(now_s)
        if self._live is None:
            say(f"{self._title}: " + ", ".join(f"{value} {name}" for name, value in facts))
            return
        table = Table(box=None, show_header=False, title=self._title, title_justify="left")
        for name, value in facts:
            table.add_row(name, value)
        self._live.update(table)

    def _facts(self, now_s: float) -> list[tuple[str, str]]:
        """Return names and values, the more telling first."""
        progress, status = self._progress, self._status
        facts: list[tuple[str, str]] = []
        if progress is not None:
            (since_s, before), (_, events) = self._history[0], self._history[-1]
            rate = (events - before) / max(now_s - since_s, 1e-9)
            watermark = "none yet" if progress.watermark_us is None else format_time(progress.watermark_us)
            facts += [
                ("events", f"{progress.events:,}"),
                ("events/s", f"{rate:,.0f}"),
                ("snapshots", f"{progress.snapshots:,}"),
                ("revisions", f"{progress.revisions:,}"),
                ("watermark", watermark),
                ("late", f"{progress.late:,}"),
                ("rejected", f"{progress.rejected:,}"),
                ("duplicates", f"{progress.duplicates:,}"),
            ]
        if status is not None:
            lags: dict[str, int] = {}
            for partition in status.partitions:
                topic = partition.partition.rpartition("/")[0]
                lags[topic] = lags.get(topic, 0) + partition.lag
            facts += [(f"lag of {topic}", f"{lag:,}") for topic, lag in sorted(lags.items())]
            facts.append(("idle partitions", f"{sum(p.idle for p in status.partitions)} of {len(status.partitions)}"))
            facts.append(("gaps", f"{sum(p.gaps for p in status.partitions):,}"))
            facts.append(("client", status.client))
            if status.waiting_s is not None:
                facts.append(("without a broker", f"{status.waiting_s:.0f} s"))
        if self._committed_s is not None:
            facts.append(("since the last commit", f"{now_s - self._committed_s:.1f} s"))
        projector = None if self._running is None else self._running.projector
        if projector is not None:
            projection = projector.status()
            facts.append(("waiting for InfluxDB", f"{projection.waiting:,}"))
            if projection.error:
                failing_s = projection.failing_s(time.time()) or 0.0
                facts.append(("InfluxDB", f"{projection.error}, for {failing_s:.0f} s"))
        return facts
