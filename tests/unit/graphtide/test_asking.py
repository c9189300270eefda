"""What may be asked for with: plain numbers and lists, and those of numpy and pandas alike."""

import json
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from graphtide import AsyncClient, Client, Job
from tests.unit.graphtide.client_cases import both_clients, call

JOB = {
    **{"id": "0" * 32, "graph": "toy", "status": "queued", "horizon": 5, "progress": {"steps_done": 0}},
    **{"problem": None, "provenance": None},
}
WANTED = {"horizon": 5, "metrics": ["events", "new_nodes"], "quantiles": [0.1, 0.3, 0.5], "seed": 7, "paths": 2}


@both_clients
@pytest.mark.parametrize(
    "given",
    [
        WANTED,
        {
            "horizon": np.int64(5),
            "metrics": np.array(["events", "new_nodes"]),
            "quantiles": np.array([0.1, 0.1 + 0.2, 0.5]),
            "seed": np.uint8(7),
            "paths": np.int32(2),
        },
        {
            **WANTED,
            "metrics": pd.Index(["events", "new_nodes"]),
            "quantiles": np.array([0.1, 0.3, 0.5], dtype=np.float32),
        },
        {**WANTED, "metrics": ("events", "new_nodes"), "quantiles": pd.Series([0.1, 0.3, 0.5])},
    ],
)
def test_a_job_and_a_short_forecast_are_asked_for_alike(is_async: bool, given: dict[str, Any]) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        told = {"graph": "toy", "outputs": [], "provenance": {}}
        return httpx.Response(200, json=JOB if request.method == "POST" else told)

    call(is_async, answer, "ask", "toy", **given)
    call(is_async, answer, "forecast", "toy", **given)
    assert json.loads(asked[0].content) == WANTED
    query = {"horizon": "5", "metrics": "events,new_nodes", "quantiles": "0.1,0.3,0.5", "seed": "7", "paths": "2"}
    assert dict(asked[1].url.params) == query


@both_clients
def test_a_single_text_is_one_metric(is_async: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        told = {"graph": "toy", "outputs": [], "provenance": {}}
        return httpx.Response(200, json=JOB if request.method == "POST" else told)

    call(is_async, answer, "ask", "toy", 5, metrics="events")
    call(is_async, answer, "forecast", "toy", 5, metrics="events")
    assert json.loads(asked[0].content)["metrics"] == ["events"]
    assert asked[1].url.params["metrics"] == "events"


@both_clients
def test_what_json_has_not_is_named(is_async: bool) -> None:
    with pytest.raises(TypeError, match="a complex cannot be sent"):
        call(is_async, lambda _: httpx.Response(500), "ask", "toy", 5j)


@both_clients
@pytest.mark.parametrize("method", ["job", "cancel"])
@pytest.mark.parametrize("of", ["0" * 32, Job.of(JOB)], ids=["id", "job"])
def test_a_job_is_looked_up_and_cancelled_by_its_id_or_as_it_was_given(
    is_async: bool, method: str, of: Job | str
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=JOB)

    assert call(is_async, answer, method, of) == Job.of(JOB)
    assert asked == [f"/v1/forecasts/{'0' * 32}"]


@pytest.mark.parametrize("key", ["gt_schlüssel", "gt_0123\n", "gt 0123", ""])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_cannot_be_an_api_key_is_told_at_once_and_not_shown(kind: type[Client | AsyncClient], key: str) -> None:
    with pytest.raises(ValueError, match="key is no API key") as told:
        kind("http://x", key)
    assert type(told.value) is ValueError
    assert "0123" not in str(told.value)


@both_clients
@pytest.mark.parametrize("asking", [("ask", "toy", 5), ("send", "toy", [{"src": "a"}])])
def test_an_idempotency_key_that_cannot_be_sent_is_named(is_async: bool, asking: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="idempotency_key is 'März'") as told:
        call(is_async, lambda _: httpx.Response(500), *asking, idempotency_key="März")
    assert type(told.value) is ValueError
