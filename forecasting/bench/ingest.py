"""`ingest`: events a second from a real Kafka broker into a durable store, against stream processors doing as much.

Systems are run in turns, those of single messages on the same topic; figures are medians over the turns. Every system
but plain polling is checked: the sums of its counts must be the right ones, or it has no figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from tempfile import TemporaryDirectory

from forecasting.bench import ingest_systems
from forecasting.bench.broker import Topic, batch_messages, running_broker, single_messages
from forecasting.bench.ingest_systems import Ran, System
from forecasting.bench.latency import reader_latencies_ms
from forecasting.bench.measure import Say
from forecasting.bench.processes import PeerError
from forecasting.bench.report import Missing, Report, Row
from forecasting.bench.servers.kafka import KafkaServer
from forecasting.bench.stream_input import N_EVENTS, EventLog

CASES = ("poll", "three-counts", "three-counts-fast", "batched-ndjson", "batched-full-schema", "rss", "reader-p99")
TARGETS: dict[str, dict[str, float]] = {
    "poll": {"kafka-python-poll": 3},
    "three-counts": {"kafka-python-poll": 0.75, "bytewax": 1.2, "quix": 30},
    "three-counts-fast": {"bytewax": 2.5},
    "batched-ndjson": {"single-message": 5},
    "batched-full-schema": {"target": 1},
    "rss": {"bytewax": 1 / 0.75},
    "reader-p99": {"target": 1},
}
# What a stretch goal and a promise of ours ask for.
TARGET_EVENTS_PER_S = 1e6
TARGET_READER_MS = 2.0
# Quix Streams copies the whole state of a window for each event: more would take minutes and become slower.
QUIX_EVENTS = 40_000
RATE, CPU, MEMORY, LATENCY = "events/s", "us of CPU an event", "MiB", "ms"


@dataclass(slots=True)
class Lane:
    """One system with the topic that it reads, and how its runs went."""

    system: System
    topic: Topic
    runs: list[Ran] = field(default_factory=list)
    failure: str = ""

    @property
    def events_per_s(self) -> list[float]:
        """The rate of each run."""
        return [run.events_per_s for run in self.runs]

    def run(self) -> None:
        """Run once more; a lane that failed stays so."""
        if self.failure:
            return
        try:
            self.runs.append(self.system(self.topic))
        except PeerError as error:
            self.failure = str(error)


def measure(*, command: str, cases: Sequence[str] = CASES, runs: int = 3, events: int = N_EVENTS, say: Say) -> Report:
    """Run the benchmark.

    Args:
        command: how it was called, for the report.
        cases: of `CASES`.
        runs: turns of each system.
        events: how many; the published figures have `N_EVENTS`.
        say: told what is going on.

    Raises:
        PeerError: there is no broker, or it takes no messages.
    """
    report = Report("ingest", command)
    report.hardware["threads"] = report.hardware["cores"]
    log = EventLog.make(events)
    with running_broker() as server:
        say(f"Sending {events:,} events …")
        lanes = _lanes(server, log, cases, report, say)
        for turn in range(runs):
            for name, lane in lanes.items():
                lane.run()
                last = f"{lane.events_per_s[-1]:,.0f} events/s" if not lane.failure else lane.failure
                say(f"  {turn + 1}/{runs} {name}: {last}")
        _report_rates(report, lanes, cases)
        if "reader-p99" in cases:
            _report_reader(report, lanes["graphtide"].topic, say)
    for case in dict.fromkeys(row.case for row in report.rows):
        for peer in TARGETS.get(case, {}):
            report.compare(case, peer, TARGETS[case][peer])
    for package in ("kafka-python", "confluent-kafka", "numpy", "pyarrow", "msgspec"):
        try:
            report.versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return report


def _lanes(server: KafkaServer, log: EventLog, cases: Sequence[str], report: Report, say: Say) -> dict[str, Lane]:
    """Make the lanes that the cases need, by name; a peer without an environment is missing."""
    single = single_messages(server, log)
    lanes = {"graphtide": Lane(ingest_systems.graphtide(client="kafka-python"), single)}
    if "three-counts-fast" in cases:
        lanes["graphtide-fast"] = Lane(ingest_systems.graphtide(client="confluent"), single)
    if {"batched-ndjson", "batched-full-schema"} & set(cases):
        batched = batch_messages(server, log)
        lanes["graphtide-batched"] = Lane(ingest_systems.graphtide(client="kafka-python"), batched)
        if "batched-full-schema" in cases:
            lanes["graphtide-batched-fast"] = Lane(ingest_systems.graphtide(client="confluent"), batched)
    if "poll" in cases:
        lanes["graphtide-poll"] = Lane(ingest_systems.graphtide_poll(), single)
    peers: list[tuple[str, Callable[[Say], System], Topic]] = []
    if {"poll", "three-counts"} & set(cases):
        peers.append(("kafka-python-poll", ingest_systems.kafka_python_poll, single))
    if "three-counts" in cases:
        closed = single_messages(server, log.head(QUIX_EVENTS), closing=True)
        peers.append(("quix", ingest_systems.quix, closed))
    if {"three-counts", "three-counts-fast", "rss"} & set(cases):
        peers.append(("bytewax", ingest_systems.bytewax, single))
    for name, make, topic in peers:
        try:
            lanes[name] = Lane(make(say), topic)
        except PeerError as error:
            report.missing += [Missing(case, name, str(error)) for case in cases if name in TARGETS[case]]
    return lanes


def _report_rates(report: Report, lanes: dict[str, Lane], cases: Sequence[str]) -> None:
    """Add the rows of all cases but the reader's: of each system its rate, its processor's time and its memory."""
    of_case = {
        "poll": ("graphtide-poll", "kafka-python-poll"),
        "three-counts": ("graphtide", *TARGETS["three-counts"]),
        "three-counts-fast": ("graphtide-fast", "bytewax"),
        "batched-ndjson": ("graphtide-batched", "single-message"),
        "batched-full-schema": ("graphtide-batched-fast",),
    }
    for case, names in of_case.items():
        if case not in cases:
            continue
        for name in names:
            lane = lanes.get("graphtide" if name == "single-message" else name)
            system = "graphtide" if name.startswith("graphtide") else name
            if lane is not None:
                _add(report, case, system, lane, RATE, lane.events_per_s)
                cpu_us = [run.cpu_s / run.events * 1e6 for run in lane.runs]
                _add(report, f"{case}-cpu", system, lane, CPU, cpu_us)
    if "batched-full-schema" in cases:
        report.add(Row("batched-full-schema", "target", TARGET_EVENTS_PER_S, RATE))
    if "rss" in cases:
        for system in ("graphtide", "bytewax"):
            if system in lanes and all(run.peak_bytes for run in lanes[system].runs):
                peaks = [run.peak_bytes / 2**20 for run in lanes[system].runs]
                _add(report, "rss", system, lanes[system], MEMORY, peaks)


def _add(report: Report, case: str, system: str, lane: Lane, unit: str, values: list[float]) -> None:
    if lane.failure:
        report.missing.append(Missing(case, system, lane.failure))
    else:
        report.add(Row(case, system, median(values), unit, median(values), len(values)))


def _report_reader(report: Report, topic: Topic, say: Say) -> None:
    """Add what a reader waits for the last snapshots of a graph while a topic is ingested."""
    say("  a reader beside ingestion …")
    case = "reader-p99"
    try:
        with TemporaryDirectory(prefix="graphtide-bench-") as folder:
            waits_ms = reader_latencies_ms(topic, f"sqlite:///{folder}/store.db")
    except PeerError as error:
        report.missing.append(Missing(case, "graphtide", str(error)))
        return
    waits_ms.sort()
    p99 = waits_ms[min(len(waits_ms) - 1, int(0.99 * len(waits_ms)))]
    report.add(Row(case, "graphtide", p99, LATENCY, p99, len(waits_ms)))
    report.add(Row(case, "target", TARGET_READER_MS, LATENCY))
