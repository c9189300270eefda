"""nginx before two services: a graph stays with one of them, the other stands in, streams come as they are made."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from forecasting.bench.servers.base import MissingServerError
from tests import plain_http
from tests.conftest import lacking
from tests.integration.serving import save_model, served, service_settings
from tests.servers.nginx import NginxServer

FORECAST = "/v1/graphs/toy/forecast?horizon=3&metrics=events"


class Fleet:
    """Two services by port, and an nginx before them."""

    def __init__(self, store: str, folder: Path, nginx_folder: Path) -> None:
        save_model(store, "toy", folder / "models")
        self._running = {}
        for _ in range(2):
            stack = ExitStack()
            client = stack.enter_context(served(service_settings(store, folder)))
            self._running[client.base_url.port] = stack
        self.nginx = NginxServer(nginx_folder, [port for port in self._running if port is not None])

    def stop(self, port: int) -> None:
        self._running.pop(port).close()

    def close(self) -> None:
        self.nginx.discard()
        for port in list(self._running):
            if port is not None:
                self.stop(port)


@pytest.fixture
def fleet(toy_store: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(toy_store, tmp_path, tmp_path / "nginx")
    try:
        fleet.nginx.start()
    except MissingServerError as missing:
        fleet.close()
        lacking("nginx", str(missing))
    yield fleet
    fleet.close()


def asked_of(answer: httpx.Response) -> int:
    """Return the port of the service that answered; where two were tried, the last of them did."""
    return int(answer.headers["x-upstream"].rpartition(":")[2])


def test_a_graph_stays_with_a_service_until_that_is_away(fleet: Fleet) -> None:
    with plain_http.Client(base_url=fleet.nginx.url, timeout=60) as client:
        answers = [client.get(FORECAST) for _ in range(6)]
        assert {answer.status_code for answer in answers} == {200}
        assert len({asked_of(answer) for answer in answers}) == 1
        # Graphs are spread: of many names some go to either.
        others = [client.get(f"/v1/graphs/g{number}/snapshots") for number in range(40)]
        assert {answer.status_code for answer in others} == {404}
        assert len({asked_of(answer) for answer in others}) == 2

        home = asked_of(answers[0])
        fleet.stop(home)
        instead = [client.get(FORECAST) for _ in range(4)]
        assert {answer.status_code for answer in instead} == {200}
        assert home not in {asked_of(answer) for answer in instead}
        assert {answer.content for answer in instead} == {answers[0].content}
        assert client.get("/readyz").status_code == 200


def test_streams_come_as_they_are_made(fleet: Fleet) -> None:
    headers = {"Accept": "text/event-stream"}
    url = f"{fleet.nginx.url}/v1/graphs/toy/live"
    with httpx.stream("GET", url, headers=headers, timeout=20) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        # The stream goes on for ever: a first event arrives only if nothing waits for its end.
        assert any(line.startswith("data:") for line in _first(stream, 20))


def _first(stream: httpx.Response, lines: int) -> list[str]:
    found = []
    for line in stream.iter_lines():
        found.append(line)
        if len(found) >= lines or line.startswith("data:"):
            break
    return found
