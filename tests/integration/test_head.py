"""HEAD says what GET says, without the body; `Allow` names every method of a resource."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from forecasting.job_worker import work
from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from tests.integration.serving import save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS, done
from tests.integration.test_report_service import working

# Of the moment, or drawn anew for each page.
DIFFERING = {"date", "x-request-id", "content-security-policy", "transfer-encoding"}
LIVE = "/v1/graphs/toy/live"


@pytest.fixture(scope="module")
def client(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("head")
    save_model(toy_store, "toy", folder / "models")
    settings = service_settings(toy_store, folder, jobs=JOBS, api={"max_streams_per_key": 1})
    with ServiceFile(settings.api.service_db) as file:
        token = Keys(file).create("k", Scope.ADMIN, ["*"])[1]
    with served(settings) as client, working(settings, work):
        client.headers["X-API-Key"] = token
        yield client


def told(answer: httpx.Response) -> tuple[int, dict[str, str]]:
    return answer.status_code, {name: text for name, text in answer.headers.items() if name not in DIFFERING}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/graphs/toy", {}, 200),
        ("/livez", {}, 200),
        ("/openapi.json", {}, 200),
        ("/v1/graphs", {}, 200),
        ("/v1/graphs/toy", {}, 200),
        ("/v1/graphs/toy/snapshots?limit=3", {"Accept": "text/csv"}, 200),
        ("/v1/graphs/toy/forecast?horizon=24", {}, 200),
        ("/v1/graphs/toy/forecast?horizon=0", {}, 422),
        ("/v1/graphs/none/forecast", {}, 404),
        ("/v1/alert-rules", {}, 200),
        ("/v1/graphs", {"X-API-Key": "wrong"}, 401),
        ("/nothing", {}, 404),
    ],
)
def test_head_is_that_of_get(client: httpx.Client, path: str, headers: dict[str, str], status: int) -> None:
    asked, head = client.get(path, headers=headers), client.head(path, headers=headers)
    assert told(head) == told(asked)
    assert (head.status_code, head.content) == (status, b"")
    assert head.headers["content-length"] == asked.headers["content-length"] != "0"


def test_nothing_follows_the_head_on_the_connection(client: httpx.Client) -> None:
    place = (client.base_url.host, client.base_url.port or 80)
    for path in ("/livez", "/v1/graphs", LIVE):
        with socket.create_connection(place, timeout=20) as connection:
            key = client.headers["X-API-Key"]
            asking = f"HEAD {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"
            connection.sendall(asking.encode())
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 200")
        assert said.index(b"\r\n\r\n") == len(said) - 4


def test_head_of_a_stream_ends_at_once_and_makes_room_for_the_next(client: httpx.Client) -> None:
    for _ in range(3):
        head = client.head(LIVE)
        # Of a key there is one stream at a time: none of these is left open.
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    with client.stream("GET", LIVE) as stream:
        assert told(stream) == told(head)
        assert client.head(LIVE).status_code == 429


def test_head_of_a_result_that_is_written_while_it_is_sent(client: httpx.Client) -> None:
    here = done(client)
    for path in (here, f"{here}/result", f"{here}/stream"):
        assert told(client.head(path)) == told(client.get(path))


def test_head_is_counted_and_audited_as_itself(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "graphtide.audit"):
        client.head("/v1/graphs/toy")
        client.head("/v1/graphs/toy/forecast")
    assert not caplog.records, "nothing is changed by it"
    lines = client.get("/metrics").text.splitlines()
    for route in ("/v1/graphs/{graph}", "/v1/graphs/{graph}/forecast"):
        assert any('method="HEAD"' in line and f'route="{route}"' in line for line in lines), route


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/graphs", "GET, HEAD"),
        ("PUT", "/v1/graphs/toy/forecast", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/v1/alert-rules/any", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/v1/report-schedules/any", "GET, HEAD, PUT, DELETE"),
        ("GET", "/v1/graphs/toy/forecasts", "POST"),
        ("HEAD", "/v1/graphs/toy/forecasts", "POST"),
        ("HEAD", "/v1/alerts/any/silence", "POST, DELETE"),
    ],
)
def test_allow_names_every_method(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert answer.json()["detail"].endswith(f"there is {allowed}")


def test_no_operation_of_the_description_is_head(client: httpx.Client) -> None:
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]
