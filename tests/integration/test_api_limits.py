"""Requests that go no further than the gate, and answers as they travel."""

import gzip
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import zstandard

from forecasting.api import compression, responses
from forecasting.api.compression import Coding
from tests.integration.serving import save_model, served, service_settings

FORECAST = "/v1/graphs/toy/forecast"


@pytest.fixture(scope="module")
def client(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("limits")
    save_model(toy_store, "toy", folder / "models")
    with served(service_settings(toy_store, folder)) as client:
        yield client


def raw(client: httpx.Client, url: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """Return an answer and its body as it travelled."""
    with client.stream("GET", url, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


def test_a_page_of_another_site_can_neither_write_nor_read(client: httpx.Client) -> None:
    rebound = f"evil.example:{client.base_url.port}"
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": rebound, "Origin": f"http://{rebound}"}, 421),
    ):
        for method, url, body in (("POST", "/v1/graphs/toy/forecasts", '{"horizon": 5}'), ("GET", "/v1/graphs", None)):
            answer = client.request(method, url, headers=headers, content=body)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/readyz", headers={"Host": "10.0.0.7"}).status_code == 200
    own = f"http://127.0.0.1:{client.base_url.port}"
    assert client.get("/v1/graphs", headers={"Origin": own}).status_code == 200


@pytest.mark.parametrize("url", [FORECAST, "/v1/graphs/toy/snapshots"])
def test_answers_are_compressed_as_the_client_wants(client: httpx.Client, url: str) -> None:
    plain, body = raw(client, url, **{"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["vary"]
    coded, packed = raw(client, url, **{"Accept-Encoding": "gzip, zstd"})
    assert coded.headers["content-encoding"] == "zstd"
    assert len(packed) < len(body) / 2
    assert zstandard.decompress(packed) == body
    zipped, packed = raw(client, url, **{"Accept-Encoding": "gzip"})
    assert gzip.decompress(packed) == body
    tags = [answer.headers["etag"] for answer in (plain, coded, zipped)]
    assert len(set(tags)) == 3
    for tag in tags:
        assert client.get(url, headers={"If-None-Match": tag}).status_code == 304


def test_a_forecast_is_compressed_once(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[int] = []

    def counted(body: bytes, coding: Coding) -> bytes:
        compressed.append(len(body))
        return compression.compressed(body, coding)

    monkeypatch.setattr(responses, "compressed", counted)
    bodies = {raw(client, FORECAST + "?horizon=31", **{"Accept-Encoding": "zstd"})[1] for _ in range(3)}
    assert (len(bodies), len(compressed)) == (1, 1)


def test_small_answers_travel_as_they_are(client: httpx.Client) -> None:
    assert "content-encoding" not in raw(client, "/v1/graphs", **{"Accept-Encoding": "zstd"})[0].headers


def test_whoever_asks_too_often_is_told_when_to_come_again(toy_store: str, tmp_path: Path) -> None:
    chosen = service_settings(toy_store, tmp_path, api={"rate_per_s": 0.01, "rate_burst": 3})
    with served(chosen) as client:
        answers = [client.get("/v1/graphs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[3].headers["retry-after"]) <= 100
        assert answers[3].json()["type"] == "urn:graphtide:problem:too-many-requests"
        assert client.get("/readyz").status_code == 200


def test_a_client_that_hangs_up_inside_its_body_is_no_failure_of_ours(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = "POST /v1/graphs/toy/forecasts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as connection:
        connection.sendall(head.encode() + b'{"horizon": ')
    counted = 'graphtide_http_requests_total{method="POST",route="/v1/graphs/{graph}/forecasts",status="499"} 1.0'
    deadline_s = time.monotonic() + 20
    while counted not in client.get("/metrics").text:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert [record for record in caplog.records if record.exc_info] == []
