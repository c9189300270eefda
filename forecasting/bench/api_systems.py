"""The servers that `bench api` measures: our own over a store of simulated graphs, and the peers over the same."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import psutil

from forecasting.bench.api_peers import work
from forecasting.bench.http_load import Plan, Result, get, post
from forecasting.bench.processes import ROOT, PeerError, peer_python
from forecasting.bench.servers.base import Server, ServerFailedError
from forecasting.bench.servers.service import GraphtideService
from forecasting.keys import Scope
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import HOURS_PER_YEAR, SimulationConfig
from stream.sources.simulate import SimulatedSource

# Graphs by their hours: the one that is asked, and two that say whether the length of a history matters.
HISTORIES = {"bench": 56_000, "short-history": 1_000, "long-history": 100_000}
_EVENTS_PER_HOUR = 4.0
# So that the longest ends before today.
_START_US = 1_262_304_000_000_000
_START_TIMEOUT_S = 180.0


def make_store(url: str, say: Callable[[str], None]) -> None:
    """Ingest the simulated graphs into a store."""
    for graph, hours in HISTORIES.items():
        say(f"Simulating {graph}: {hours:,} hours …")
        config = SimulationConfig(
            years=hours / HOURS_PER_YEAR,
            start_us=_START_US,
            events_per_hour=_EVENTS_PER_HOUR,
            growth_per_year=0.0,
            initial_users=60,
            communities=4,
        )
        ingest(SimulatedSource(config, graph=graph), url, IngestOptions())


def load(plan: Plan) -> Result:
    """Send what is planned from a process of its own.

    Raises:
        PeerError: it could not be sent.
    """
    told = json.dumps(asdict(plan)).encode()
    limit_s = 3 * plan.seconds + 120
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "forecasting.bench.http_load"],
            input=told,
            capture_output=True,
            cwd=ROOT,
            check=True,
            timeout=limit_s,
        )
        return Result(**json.loads(ran.stdout))
    except subprocess.CalledProcessError as error:
        raise PeerError(f"the load failed: {error.stderr.decode(errors='replace').strip()[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"the load took more than {limit_s:.0f} s") from error


def cpu_s(server: Server) -> float:
    """Return the processor time that a server and all that it started have used."""
    total = 0.0
    for process in (leader := psutil.Process(server.pid), *leader.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def once(port: int, request: str) -> tuple[int, bytes]:
    """Return status and body of one request, as the load sends it."""
    head, _, body = request.partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    method, path, _ = line.split(" ")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None, dict(header.split(": ", 1) for header in headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class BenchService(GraphtideService):
    """Our service with the settings of the benchmark: a key, and no limit that the load would meet."""

    start_timeout_s: ClassVar[float] = _START_TIMEOUT_S

    def __init__(self, folder: Path, store_url: str, *, workers: int = 1) -> None:
        unlimited = str(10**6)
        settings = {
            "GRAPHTIDE_API__WORKERS": str(workers),
            "GRAPHTIDE_JOBS__MAX_ACTIVE": unlimited,
            "GRAPHTIDE_JOBS__MAX_ACTIVE_PER_KEY": unlimited,
            "GRAPHTIDE_API__DEADLINE_S": "60",
        }
        super().__init__(folder, store_url, settings)
        self._headers = {"Authorization": f"Bearer {self.make_key('bench', Scope.WRITE)}"}

    def short(self, graph: str = "bench", *, anew: bool = True) -> str:
        """Return a request for a short forecast; `anew` for one that takes nothing that is kept."""
        levels = ",".join(f"{level:g}" for level in work.LEVELS)
        path = f"/v1/graphs/{graph}/forecast?horizon={work.STEPS}&quantiles={levels}"
        return get(path, **self._headers, **({"Cache_Control": "no-cache"} if anew else {}))

    def ask(self, horizon: int) -> str:
        """Return a request for a job."""
        return post("/v1/graphs/bench/forecasts", {"horizon": horizon}, **self._headers)

    def stream(self, job: str) -> str:
        """Return a request for the chunks of a job, as lines."""
        return get(f"/v1/forecasts/{job}/stream", **self._headers, Accept="application/x-ndjson")


class PeerServer(Server):
    """A peer over the same graph.

    Args:
        peer: its name among the requirements of peers.
        folder: where it keeps what it writes.
        store_url: the store.
        say: told when its environment is made.

    Raises:
        PeerError: its environment cannot be made.
    """

    name: ClassVar[str] = "peer"
    start_timeout_s: ClassVar[float] = _START_TIMEOUT_S

    def __init__(self, peer: str, folder: Path, store_url: str, say: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._peer = peer
        self._store_url = store_url
        self._python = peer_python(peer, say)

    def prepare(self) -> None:
        """Nothing is laid out."""

    def command(self) -> list[str]:
        """Return the command."""
        peers = "forecasting.bench.api_peers"
        if self._peer == "bentoml":
            service = f"{peers}.bentoml_app:Forecasts"
            return [self._python, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(self.port)]
        module = {"litserve": "litserve_app", "ray-serve": "ray_app"}[self._peer]
        return [self._python, "-m", f"{peers}.{module}"]

    def environment(self) -> dict[str, str]:
        """Return the environment, which says what is served, and that nobody is told of it."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "GRAPHTIDE_CPU_THREADS"), "1")
        told = {
            work.STORE: self._store_url,
            work.MODELS: str(self.folder / "models"),
            work.GRAPH: "bench",
            work.PORT: str(self.port),
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray puts sockets there, whose whole paths may have 107 bytes.
            "RAY_TMPDIR": str(self.folder.parent),
        }
        return {**os.environ, **threads, **told, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}

    @property
    def request(self) -> str:
        """The request for a short forecast."""
        path = {"litserve": "/predict", "bentoml": "/forecast", "ray-serve": "/"}[self._peer]
        return post(path, {"horizon": work.STEPS})

    def answers(self, timeout_s: float) -> bool:
        """Ask for a forecast."""
        del timeout_s
        try:
            return once(self.port, self.request)[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def started(server: Server) -> Any:
    """Start a server.

    Raises:
        PeerError: it does not start.
    """
    try:
        return server.start()
    except ServerFailedError as error:
        raise PeerError(" ".join(str(error).split())[-300:]) from error
