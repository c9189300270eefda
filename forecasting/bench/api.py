"""`api`: the forecast service against the servers of models, on a warm graph of 56,000 hours over loopback.

All servers are up at once and stand still (SIGSTOP) while another one is asked; they take turns, and figures are
medians over the turns. Whoever answers other bytes than we do has no figure.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TypeVar

from forecasting.bench.api_jobs import beside_jobs, long_forecasts
from forecasting.bench.api_systems import BenchService, PeerServer, cpu_s, load, make_store, once, started
from forecasting.bench.http_load import Plan, Result
from forecasting.bench.measure import Say
from forecasting.bench.processes import PeerError
from forecasting.bench.report import Missing, Report, Row
from forecasting.bench.servers.base import Server

# Where a peer is the deployment guide or a target, the ratio says how far we are ahead of its figure.
TARGETS: dict[str, dict[str, float]] = {
    "short-p50": {"guide": 10},
    "short-p99": {"guide": 8},
    "short-batched-saturation": {"bentoml": 5},
    "short-batched-saturation-two-processes": {"litserve": 2, "ray-serve": 7},
    "cached-saturation": {"target": 1},
    "cached-p99": {"target": 1},
    "long-36500": {"guide": 36.5 / 3},
    "long-36500-first-chunk": {"target": 1},
    "short-p99-beside-jobs": {"target": 1},
    "ask-p50-beside-jobs": {"target": 1},
    "ask-p99-beside-jobs": {"target": 1},
    "short-p50-100000-snapshots": {"1000-snapshots": 1 / 1.2},
}
# What the deployment guide promises, and what we do.
_FIGURES = {
    ("short-p50", "guide"): 50.0,
    ("short-p99", "guide"): 200.0,
    ("long-36500", "guide"): 36.5,
    ("cached-saturation", "target"): 4_000.0,
    ("cached-p99", "target"): 10.0,
    ("long-36500-first-chunk", "target"): 150.0,
    ("short-p99-beside-jobs", "target"): 25.0,
    ("ask-p50-beside-jobs", "target"): 50.0,
    ("ask-p99-beside-jobs", "target"): 200.0,
}
RATE, MS, CPU, SHARE = "requests/s", "ms", "us of CPU a request", "% of a core"
_ONE, _TWO = "short-batched-saturation", "short-batched-saturation-two-processes"
# A worker of LitServe or Ray Serve is a process with the model and one for HTTP: ours have as many there.
PEERS = {"litserve": (_ONE, _TWO), "bentoml": (_ONE,), "ray-serve": (_ONE, _TWO)}
# Requests a second of the open loops.
SHORT_RATE, CACHED_RATE = 100.0, 4_000.0
TURN_S = 4.0
MIN_ROUNDS = 3
_LANES = 32


@dataclass(slots=True)
class Figures:
    """What the turns gave, by case and system, with the unit."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def add(self, case: str, system: str, value: float, unit: str) -> None:
        """Note a figure of a turn."""
        self.values.setdefault((case, system, unit), []).append(value)

    def report(self, report: Report) -> None:
        """Append the medians."""
        for (case, system, unit), values in self.values.items():
            report.add(Row(case, system, median(values), unit, median(values), len(values)))


Group = Callable[["Bench"], None]
AnyServer = TypeVar("AnyServer", bound=Server)


@dataclass(slots=True)
class Bench:
    """A run of the benchmark.

    Attributes:
        service: ours.
        folder: for the others.
        store_url: of the graphs.
        budget_s: time of the rounds of a group.
        figures, missing: what is found, and what is not.
        say: told what is going on.
    """

    service: BenchService
    folder: Path
    store_url: str
    budget_s: float
    figures: Figures
    missing: list[Missing]
    say: Say

    def rounds(self) -> Iterator[int]:
        """Yield the numbers of the rounds that fit into the budget, a few in any case."""
        end_s, number = monotonic() + self.budget_s, 0
        while number < MIN_ROUNDS or monotonic() < end_s:
            yield number
            number += 1

    def turn(self, server: Server, plan: Plan) -> tuple[Result, float]:
        """Send what is planned to a server; return what came back, and its processor time an answer in seconds.

        Raises:
            PeerError: not all was answered, and with success.
        """
        before_s = cpu_s(server)
        result = load(plan)
        used_s = cpu_s(server) - before_s
        wrong = {status: n for status, n in result.statuses.items() if status not in {"200", "202"}}
        if wrong or result.failed or not result.latencies_ms:
            raise PeerError(f"of {len(result.latencies_ms)} answers some were {wrong}; {result.failed} did not come")
        return result, used_s / len(result.latencies_ms)


def measure(*, command: str, budget_s: float, only: str = "", say: Say) -> Report:
    """Run the benchmark.

    Args:
        command: how it was called, for the report.
        budget_s: time of the rounds of each group of cases.
        only: only groups with a case that has this in its name.
        say: told what is going on.

    Raises:
        PeerError: our own service cannot be started.
    """
    report = Report("api", command)
    report.hardware["threads"] = report.hardware["cores"]
    figures = Figures()
    chosen = [(cases, group) for cases, group in GROUPS if any(only in case for case in cases)]
    if not chosen:
        return report
    with TemporaryDirectory(prefix="graphtide-bench-") as folder, ExitStack() as stack:
        store_url = f"sqlite:///{folder}/store.db"
        make_store(store_url, say)
        say("Starting the service, which reads the histories …")
        service = stack.enter_context(_running(BenchService(Path(folder) / "graphtide", store_url)))
        for graph in ("bench", "short-history", "long-history"):
            once(service.port, service.short(graph))
        bench = Bench(service, Path(folder), store_url, budget_s, figures, report.missing, say)
        for cases, group in chosen:
            say(f"{', '.join(cases)} …")
            try:
                group(bench)
            except PeerError as error:
                # What the other groups found stays worth its minutes.
                bench.missing += [Missing(case, "graphtide", str(error)) for case in cases]
    figures.report(report)
    for (case, system), value in _FIGURES.items():
        if any(row.case == case for row in report.rows):
            unit = next(row.unit for row in report.rows if row.case == case)
            report.add(Row(case, system, value, unit))
    for row in list(report.rows):
        if row.system != "graphtide" and not row.case.endswith("-load"):
            report.compare(row.case, row.system, TARGETS.get(row.case, {}).get(row.system))
    for package in ("fastapi", "uvicorn", "orjson", "numpy", "torch"):
        report.versions[package] = version(package)
    return report


@contextmanager
def _running(server: AnyServer) -> Iterator[AnyServer]:
    started(server)
    try:
        yield server
    finally:
        server.discard()


def _short(bench: Bench) -> None:
    """Uncached, at a fixed rate: every request has the model run after it came."""
    for _ in bench.rounds():
        plan = Plan(bench.service.port, (bench.service.short(),), TURN_S, rate=SHORT_RATE)
        result, used_s = bench.turn(bench.service, plan)
        bench.figures.add("short-p50", "graphtide", result.percentile_ms(50), MS)
        bench.figures.add("short-p99", "graphtide", result.percentile_ms(99), MS)
        bench.figures.add("short-cpu", "graphtide", 1e6 * used_s, CPU)
        bench.figures.add("short-load", "generator", 100 * result.cpu_s / result.seconds, SHARE)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A server that is measured in turns, and the cases that it stands in."""

    server: Server
    request: str
    cases: tuple[str, ...]
    system: str


def _saturation(bench: Bench) -> None:
    """As much as each can, uncached, process for process."""
    status, expected = once(bench.service.port, bench.service.short())
    if status != 200:
        raise PeerError(f"the service answers {status}")
    with ExitStack() as stack:
        pair = BenchService(bench.folder / "pair", bench.store_url, workers=2)
        stack.enter_context(_running(pair))
        # Both of them read the history before they are measured.
        load(Plan(pair.port, (pair.short(),), 1.0, _LANES))
        pair.pause()
        lanes = [
            _Lane(bench.service, bench.service.short(), (_ONE,), "graphtide"),
            _Lane(pair, pair.short(), (_TWO,), "graphtide"),
        ]
        for peer, cases in PEERS.items():
            bench.say(f"  {peer} …")
            try:
                started_peer = PeerServer(peer, bench.folder / peer, bench.store_url, bench.say)
                stack.enter_context(_running(started_peer))
                if once(started_peer.port, started_peer.request) != (200, expected):
                    raise PeerError("it answers other bytes")
            except PeerError as error:
                bench.missing += [Missing(case, peer, str(error)) for case in cases]
                continue
            started_peer.pause()
            lanes.append(_Lane(started_peer, started_peer.request, cases, peer))
        for _ in bench.rounds():
            for lane in list(lanes):
                try:
                    _turn_at(bench, lane)
                except PeerError as error:
                    lanes.remove(lane)
                    bench.missing += [Missing(case, lane.system, str(error)) for case in lane.cases]


def _turn_at(bench: Bench, lane: _Lane) -> None:
    lane.server.resume()
    try:
        result, used_s = bench.turn(lane.server, Plan(lane.server.port, (lane.request,), TURN_S, _LANES))
    finally:
        if lane.server is not bench.service:
            lane.server.pause()
    for case in lane.cases:
        bench.figures.add(case, lane.system, result.per_s, RATE)
        bench.figures.add(f"{case}-cpu", lane.system, 1e6 * used_s, CPU)
    if lane.server is bench.service:
        bench.figures.add(f"{_ONE}-load", "generator", 100 * result.cpu_s / result.seconds, SHARE)


def _cached(bench: Bench) -> None:
    """The same request again and again, as fast as it goes and at a fixed rate."""
    request = (bench.service.short(anew=False),)
    once(bench.service.port, request[0])
    for _ in bench.rounds():
        result, used_s = bench.turn(bench.service, Plan(bench.service.port, request, TURN_S, _LANES))
        bench.figures.add("cached-saturation", "graphtide", result.per_s, RATE)
        bench.figures.add("cached-cpu", "graphtide", 1e6 * used_s, CPU)
        plan = Plan(bench.service.port, request, TURN_S, rate=CACHED_RATE)
        result, _ = bench.turn(bench.service, plan)
        bench.figures.add("cached-p99", "graphtide", result.percentile_ms(99), MS)
        bench.figures.add("cached-load", "generator", 100 * result.cpu_s / result.seconds, SHARE)


def _long(bench: Bench) -> None:
    """A job of 36,500 steps from the request to its last chunk."""
    for first_ms, whole_s in long_forecasts(bench.service, bench.rounds()):
        bench.figures.add("long-36500", "graphtide", whole_s, "s")
        bench.figures.add("long-36500-first-chunk", "graphtide", first_ms, MS)


def _beside(bench: Bench) -> None:
    """Short forecasts and new jobs while a long job runs."""
    for _ in bench.rounds():
        with beside_jobs(bench.service) as asked:
            plan = Plan(bench.service.port, (bench.service.short(),), TURN_S, rate=SHORT_RATE)
            result, _ = bench.turn(bench.service, plan)
        posted = asked()
        bench.figures.add("short-p50-beside-jobs", "graphtide", result.percentile_ms(50), MS)
        bench.figures.add("short-p99-beside-jobs", "graphtide", result.percentile_ms(99), MS)
        bench.figures.add("ask-p50-beside-jobs", "graphtide", posted.percentile_ms(50), MS)
        bench.figures.add("ask-p99-beside-jobs", "graphtide", posted.percentile_ms(99), MS)


def _histories(bench: Bench) -> None:
    """Uncached, from a history of 1,000 and one of 100,000 snapshots, in turns."""
    case = "short-p50-100000-snapshots"
    for _ in bench.rounds():
        for system, graph in (("graphtide", "long-history"), ("1000-snapshots", "short-history")):
            plan = Plan(bench.service.port, (bench.service.short(graph),), TURN_S, rate=SHORT_RATE)
            result, used_s = bench.turn(bench.service, plan)
            bench.figures.add(case, system, result.percentile_ms(50), MS)
            bench.figures.add("short-cpu-100000-snapshots", system, 1e6 * used_s, CPU)


GROUPS: tuple[tuple[tuple[str, ...], Group], ...] = (
    (("short-p50", "short-p99"), _short),
    (("short-p50-100000-snapshots",), _histories),
    (("cached-saturation", "cached-p99"), _cached),
    (("long-36500", "long-36500-first-chunk"), _long),
    (("short-p99-beside-jobs", "ask-p50-beside-jobs", "ask-p99-beside-jobs"), _beside),
    ((_ONE, _TWO), _saturation),
)
