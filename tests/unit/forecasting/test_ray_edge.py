"""What stands before Ray Serve's proxy: headers that Ray would obey, bodies without end, Ray's own answers."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forecasting.api.security_headers import SECURITY_HEADERS
from forecasting.scaleout.edge import GRAPH_HEADER, Edge, environment, middlewares
from forecasting.scaleout.serving import serve_environment
from infra.settings import Settings
from tests.conftest import lacking

OURS = [*SECURITY_HEADERS, (b"x-request-id", b"ours")]


def answer(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes = b"{}") -> list[Message]:
    return [
        {"type": "http.response.start", "status": status, "headers": list(headers)},
        {"type": "http.response.body", "body": body},
    ]


def proxy(*messages: Message, seen: list[Any] | None = None, error: Exception | None = None) -> ASGIApp:
    """Return a proxy as Ray's is: it takes what is received until that ends, and sends messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept = [] if seen is None else seen
        kept.append(scope)
        while True:
            message = await receive()
            kept.append(message)
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                break
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


def ask(
    app: ASGIApp,
    path: str = "/v1/graphs/oak/forecast",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: Sequence[bytes] = (b"",),
    *,
    send_timeout_s: float = 5.0,
    is_stuck: bool = False,
) -> list[Message]:
    sent: list[Message] = []
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(body) - 1} for number, part in enumerate(body)
    ]

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if is_stuck:
            await asyncio.Event().wait()
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": list(headers)}
    asyncio.run(Edge(app, max_body_bytes=100, send_timeout_s=send_timeout_s)(scope, receive, send))
    return sent


def problem(sent: list[Message]) -> dict[str, Any]:
    assert [name for name, _ in sent[0]["headers"]].count(b"x-request-id") == 1
    assert set(SECURITY_HEADERS) <= set(sent[0]["headers"])
    found: dict[str, Any] = json.loads(sent[1]["body"])
    assert found["status"] == sent[0]["status"]
    return found


def test_nobody_gives_orders_to_ray_and_the_router_is_told_the_graph() -> None:
    seen: list[Any] = []
    orders = ("x-session-id", "X-Request-ID", "serve_multiplexed_model_id", "x-request-timeout-seconds", GRAPH_HEADER)
    given = [(name.encode(), b"1") for name in (*orders, "X_Request_Disconnect_Disabled")]
    ask(proxy(*answer(200, OURS), seen=seen), headers=[*given, (b"authorization", b"Bearer x")])
    assert seen[0]["headers"] == [(b"authorization", b"Bearer x"), (GRAPH_HEADER.encode(), b"oak")]


@pytest.mark.parametrize("path", ["/v1/graphs", "/v1/graphs/", "/v1/forecasts/oak", "/"])
def test_what_is_about_no_graph_goes_anywhere(path: str) -> None:
    seen: list[Any] = []
    ask(proxy(*answer(200, OURS), seen=seen), path)
    assert seen[0]["headers"] == []


def test_an_answer_of_the_service_passes_with_its_own_request_id() -> None:
    sent = ask(proxy(*answer(200, [*OURS, (b"x-request-id", b"rays")], b"body")))
    assert sent == answer(200, OURS, b"body")


@pytest.mark.parametrize("status", [404, 408, 429, 500, 503])
def test_an_answer_of_rays_own_asks_to_try_again(status: int) -> None:
    sent = ask(proxy(*answer(status, [(b"content-type", b"text/plain")], b"Deployment is away at 10.0.0.3")))
    assert problem(sent)["type"].endswith(":service-unavailable")
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"1")
    assert b"10.0.0.3" not in sent[1]["body"]


@pytest.mark.parametrize("error", [None, RuntimeError("the actor died")])
def test_a_lost_replica_asks_to_try_again(error: Exception | None) -> None:
    sent = ask(proxy(error=error))
    assert (problem(sent)["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"1")


def test_an_answer_that_has_begun_is_not_mended() -> None:
    begin = answer(200, OURS)[:1]
    assert ask(proxy(*begin)) == begin
    with pytest.raises(RuntimeError, match="lost"):
        ask(proxy(*begin, error=RuntimeError("lost")))


def test_a_body_without_end_is_ended() -> None:
    seen: list[Any] = []
    sent = ask(proxy(seen=seen), body=[b"x" * 60, b"x" * 60, b"x" * 60])
    assert problem(sent)["type"].endswith(":too-large")
    assert [message["type"] for message in seen[1:]] == ["http.request", "http.disconnect"]
    assert ask(proxy(*answer(200, OURS)), body=[b"x" * 50, b"x" * 50])[0]["status"] == 200


def test_who_has_left_is_not_answered() -> None:
    assert ask(proxy(), body=[]) == []


def test_a_reader_that_takes_nothing_is_left() -> None:
    with pytest.raises(TimeoutError):
        ask(proxy(*answer(200, OURS)), send_timeout_s=0.01, is_stuck=True)


def test_rays_own_pages_are_as_they_are() -> None:
    sent = answer(200, [(b"content-type", b"text/plain")], b"success")
    assert ask(proxy(*sent), "/-/healthz") == sent


def test_a_proxy_finds_it_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(max_body_bytes=7, send_timeout_s=2.5)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert given["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "forecasting.scaleout.edge:middlewares"
    (made,) = middlewares()
    assert made.cls is Edge
    assert made.kwargs == {"max_body_bytes": 7, "send_timeout_s": 2.5}


def test_ray_lets_a_proxy_begin_slowly() -> None:
    if find_spec("ray") is None:
        lacking("ray", "the extra `ray` is not installed")
    code = (
        "from ray.serve._private import constants\n"
        "print(constants.PROXY_READY_CHECK_TIMEOUT_S, constants.PROXY_HEALTH_CHECK_TIMEOUT_S)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | serve_environment(Settings()),
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert told == "60.0 60.0\n"
