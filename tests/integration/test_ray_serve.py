"""`graphtide serve --engine ray` on a cluster of two nodes: it answers as `graphtide serve` does, also while it loses
replicas and nodes, has more replicas while more is asked, and leaves nothing behind.

The commands are those of docs/scale-out.md.
"""

import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from graphtide import Client
from infra.settings import Settings
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from tests import plain_http
from tests.conftest import Ran, lacking
from tests.integration import ray_nodes
from tests.integration.ray_command import CONTROLLER, END_S, REPLICA, Command, begun, rays, wait_for
from tests.integration.serving import save_model, served, service_settings

GRAPHS = ("ash", "elm", "oak", "yew")
CORES = 2
# What belongs to a connection or to the moment, and not to the answer.
OF_THE_MOMENT = {"date", "server", "x-request-id", "graphtide-data-age"}
_NONCE = re.compile(r'nonce(?:="|-)[\w+/=-]+')
Cli = Callable[..., Ran]


# The start of a command alone may take most of the usual limit.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", autouse=True)
def ray_is_here() -> None:
    for name in ("ray", "grpc_reflection", "mmh3"):
        if find_spec(name) is None:
            lacking("ray", "the extra `ray` is not installed")


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    with ray_nodes.two_nodes(CORES) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("served")
    url = f"sqlite:///{folder / 'store.db'}"
    for seed, graph in enumerate(GRAPHS):
        config = SimulationConfig(years=0.1, events_per_hour=1.0, initial_users=40, communities=4, seed=seed)
        ingest(SimulatedSource(config, graph=graph), url, IngestOptions())
        save_model(url, graph, folder / "models", seed=seed)
    return service_settings(url, folder, jobs={"workers": 1})


@pytest.fixture(scope="module")
def tokens(settings: Settings) -> dict[str, str]:
    with ServiceFile(settings.api.service_db) as file:
        keys = Keys(file)
        return {
            "all": keys.create("all", Scope.WRITE, ["*"])[1],
            "oak": keys.create("oak", Scope.READ, ["oak"])[1],
        }


def on(nodes: Any) -> tuple[str, ...]:
    return ("--ray-address", nodes.address, "--min-replicas", "2", "--max-replicas", "3")


@pytest.fixture(scope="module")
def command(
    settings: Settings, tokens: dict[str, str], two_nodes: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    with begun(settings, tmp_path_factory.mktemp("command") / "log", on(two_nodes)) as started:
        yield started


@pytest.fixture(scope="module")
def url(command: Command) -> str:
    return command.address()


@pytest.fixture(scope="module")
def here(settings: Settings, tokens: dict[str, str]) -> Iterator[httpx.Client]:
    """Return a client of `graphtide serve` without Ray, on the same store, models and keys."""
    with served(settings) as client:
        yield client


class Load:
    """Clients that ask one forecast after the other, and compare each with what it is to be."""

    def __init__(self, url: str, token: str, expected: dict[str, Any], clients: int) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self._made = (url, token)
        self._expected = expected
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with Client(*self._made) as client:
            while not self._stop.wait(0.01):
                graph = GRAPHS[number % len(GRAPHS)]
                number += 1
                try:
                    found = client.forecast(graph, horizon=24)
                except Exception as error:  # noqa: BLE001 - whatever it is, the client had no answer
                    self.failures.append(f"{graph}: {type(error).__name__}: {error}")
                    continue
                self.answers += 1
                if not found.frame.equals(self._expected[graph].frame):
                    self.failures.append(f"{graph}: another answer")


@pytest.fixture(scope="module")
def expected(here: httpx.Client, tokens: dict[str, str]) -> dict[str, Any]:
    with Client(str(here.base_url), tokens["all"]) as client:
        return {graph: client.forecast(graph, horizon=24) for graph in GRAPHS}


ASKED = (
    ("GET", "/v1/graphs", {}),
    *(("GET", f"/v1/graphs/{graph}/forecast?horizon=24", {}) for graph in GRAPHS),
    ("GET", "/v1/graphs/oak/forecast?horizon=5&metrics=events&paths=2&seed=3", {}),
    ("GET", "/v1/graphs/oak/forecast?horizon=168", {"accept-encoding": "gzip"}),
    ("GET", "/v1/graphs/oak/forecast?horizon=0", {}),
    ("GET", "/v1/graphs/oak/snapshots?limit=3", {"accept": "text/csv"}),
    ("HEAD", "/v1/graphs/oak/forecast?horizon=24", {}),
    ("GET", "/v1/graphs/nothing/forecast", {"x-request-id": "mine", "x-session-id": "s"}),
    ("GET", "/openapi.json", {}),
    ("GET", "/", {"accept": "text/html"}),
    ("GET", "/nothing", {}),
    ("POST", "/v1/graphs/oak/forecasts", {"content-type": "application/json"}),
    ("DELETE", "/v1/graphs", {}),
    ("GET", "/readyz", {}),
)


def said(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return what an answer says, without the nonce that each page has of its own."""
    headers = {name: _NONCE.sub("", text) for name, text in answer.headers.items() if name not in OF_THE_MOMENT}
    return answer.status_code, _NONCE.sub("", answer.text).encode(), headers


@pytest.mark.parametrize("who", ["all", "oak", None])
def test_every_answer_is_that_of_graphtide_serve(
    url: str, here: httpx.Client, tokens: dict[str, str], who: str | None
) -> None:
    key = {} if who is None else {"authorization": f"Bearer {tokens[who]}"}
    statuses = set()
    for method, path, headers in ASKED:
        answers = [
            plain_http.request(
                method, f"{base}{path}", headers=headers | key, content=b"{" if method == "POST" else None
            )
            for base in (str(here.base_url).rstrip("/"), url)
        ]
        told = [said(answer) for answer in answers]
        assert told[0] == told[1], (method, path)
        assert answers[1].headers.get_list("x-request-id") != ["mine"]
        assert len(answers[1].headers.get_list("x-request-id")) == 1
        statuses.add(answers[1].status_code)
    assert statuses == {"all": {200, 404, 405, 422}, "oak": {200, 403, 404, 405, 422}, None: {200, 401}}[who]


def test_nothing_of_it_listens_beyond_this_machine(url: str) -> None:
    listening = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_graph_is_answered_by_one_replica(url: str, tokens: dict[str, str]) -> None:
    headers = {"authorization": f"Bearer {tokens['all']}"}

    def answered() -> set[float]:
        """Return how many forecasts each replica has answered; a look goes to any of them."""
        found = set()
        for _ in range(40):
            text = plain_http.get(f"{url}/metrics", headers=headers).text
            counted = re.findall(r'http_requests_total{.*route="/v1/graphs/{graph}/forecast".*} (\S+)', text)
            found.add(sum(map(float, counted)))
        return found

    before = answered()
    for _ in range(23):
        assert plain_http.get(f"{url}/v1/graphs/elm/forecast?horizon=24", headers=headers).status_code == 200
    after = answered()
    # The other one has answered none of them.
    assert max(after - before) - 23 in before


def test_long_bodies_are_refused_with_and_without_their_length(url: str, tokens: dict[str, str]) -> None:
    headers = {"authorization": f"Bearer {tokens['all']}"}
    for content in (b"x" * 70_000, iter([b"x" * 40_000] * 2)):
        answer = plain_http.post(f"{url}/v1/graphs/oak/forecasts", headers=headers, content=content)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["maximum_bytes"]) == (413, 65_536)


def test_jobs_and_their_streams_are_those_of_graphtide_serve(
    url: str, here: httpx.Client, tokens: dict[str, str]
) -> None:
    headers = {"authorization": f"Bearer {tokens['all']}"}
    asked = {"horizon": 3000, "metrics": ["events"]}
    job = plain_http.post(f"{url}/v1/graphs/oak/forecasts", headers=headers, json=asked)
    assert job.status_code == 202
    path = f"/v1/forecasts/{job.json()['id']}"
    # Streamed while it is computed, by a process beside the command; one that waits long says so in comments.
    first, *others = (
        plain_http.get(f"{base}{path}/stream", headers=headers, timeout=60).text.replace(": still here\n", "")
        for base in (url, url, str(here.base_url).rstrip("/"))
    )
    assert "event: end" in first
    assert [other for other in others if other != first] == []
    found = [plain_http.get(f"{base}{path}/result", headers=headers) for base in (url, str(here.base_url).rstrip("/"))]
    assert said(found[0]) == said(found[1])
    assert found[0].status_code == 200


def test_no_answer_is_lost_with_a_replica_the_controller_or_a_node(
    url: str, tokens: dict[str, str], expected: dict[str, Any], two_nodes: Any
) -> None:
    with Load(url, tokens["all"], expected, clients=4) as load:
        wait_for("the load did not begin", lambda: load.answers > 20)
        before = rays(REPLICA)
        lost = min(before)
        os.kill(lost, signal.SIGKILL)
        wait_for("the replica was not replaced", lambda: len(rays(REPLICA) - {lost}) >= 2)
        answered = load.answers
        wait_for("it did not go on", lambda: load.answers > answered + 50)

        (controller,) = rays(CONTROLLER)
        os.kill(controller, signal.SIGKILL)
        wait_for("the controller was not replaced", lambda: bool(rays(CONTROLLER) - {controller}))
        answered = load.answers
        wait_for("it did not go on", lambda: load.answers > answered + 50)

        ray_nodes.lose_a_node(two_nodes)
        wait_for("the replicas of the node were not replaced", lambda: len(rays(REPLICA)) >= 2)
        ray_nodes.add_node(two_nodes, CORES)
        answered = load.answers
        wait_for("it did not go on", lambda: load.answers > answered + 50)
    assert load.failures == []


def test_there_are_more_replicas_while_more_is_asked(url: str, tokens: dict[str, str]) -> None:
    wait_for("it did not begin with two", lambda: len(rays(REPLICA)) == 2)
    stop = threading.Event()
    headers = {"authorization": f"Bearer {tokens['all']}", "cache-control": "no-cache"}

    def ask(graph: str) -> None:
        with plain_http.Client(base_url=url, headers=headers, timeout=60) as client:
            while not stop.is_set():
                client.get(f"/v1/graphs/{graph}/forecast?horizon=168&paths=50")

    threads = [threading.Thread(target=ask, args=(GRAPHS[number % 4],)) for number in range(16)]
    for thread in threads:
        thread.start()
    try:
        wait_for("there was no third", lambda: len(rays(REPLICA)) == 3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    wait_for("the third did not go", lambda: len(rays(REPLICA)) == 2)


def test_a_command_that_was_killed_is_followed_by_the_next_which_ends_cleanly(
    settings: Settings, command: Command, url: str, tokens: dict[str, str], two_nodes: Any, tmp_path: Path
) -> None:
    with begun(settings, tmp_path / "second", on(two_nodes)) as second:
        assert second.process.wait(END_S) == 2
    assert "another `graphtide serve` serves on this Ray cluster already" in second.log.read_text()
    assert plain_http.get(f"{url}/livez").status_code == 200

    command.process.kill()
    command.process.wait()
    left = rays(REPLICA)
    with begun(settings, tmp_path / "third", on(two_nodes)) as third:
        address = third.address()
        assert not left & rays(REPLICA)
        lines: list[str] = []
        headers = {"authorization": f"Bearer {tokens['oak']}"}
        with httpx.stream("GET", f"{address}/v1/graphs/oak/live", headers=headers, timeout=60) as stream:
            for line in stream.iter_lines():
                if not lines:
                    third.process.terminate()
                lines.append(line)
        # Not cut: the stream says why it ends.
        assert any("the service is stopped" in line for line in lines)
        assert third.process.wait(END_S) == 143, third.log.read_text()
    wait_for("something was left", lambda: not rays(REPLICA) | rays(CONTROLLER), 10)
    with pytest.raises(httpx.ConnectError):
        plain_http.get(f"{address}/livez")


def test_a_cluster_of_its_own_goes_with_the_command(settings: Settings, tokens: dict[str, str]) -> None:
    # Not below pytest's folder: the paths of Ray's sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, begun(settings, Path(folder) / "log", ()) as alone:
        answer = plain_http.get(f"{alone.address()}/v1/graphs", headers={"authorization": f"Bearer {tokens['oak']}"})
        assert [graph["graph"] for graph in answer.json()["graphs"]] == ["oak"]
        started = psutil.Process(alone.process.pid).children(recursive=True)
        assert rays(REPLICA, alone.process.pid)
        alone.process.send_signal(signal.SIGINT)
        assert alone.process.wait(END_S) == 130, alone.log.read_text()
        assert psutil.wait_procs(started, timeout=10)[1] == []
        assert "Traceback" not in alone.log.read_text()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--min-replicas", "2"), "are for --engine ray"),
        (("--engine", "ray", "--workers", "2"), "--workers is for --engine local"),
        (("--engine", "ray", "--min-replicas", "3", "--max-replicas", "2"), "2 replicas at most are fewer than 3"),
        (("--engine", "ray", "--host", "0.0.0.0"), "there is no API key"),
        (("--engine", "ray", "--ray-address", "127.0.0.1:1"), "no Ray cluster answers"),
    ],
)
def test_what_cannot_work_is_said(graphtide: Cli, flags: tuple[str, ...], told: str) -> None:
    ran = graphtide("serve", "--port", "0", *flags)
    assert (ran.code, told in ran.err) == (2, True), ran.err


def test_more_replicas_than_cores_are_refused(graphtide: Cli, two_nodes: Any) -> None:
    flags = ("--port", "0", "--ray-address", two_nodes.address, "--min-replicas", "9", "--max-replicas", "9")
    ran = graphtide("serve", "--engine", "ray", *flags)
    assert (ran.code, "9 replicas need a core each, and the Ray cluster has 4" in ran.err) == (2, True), ran.err
