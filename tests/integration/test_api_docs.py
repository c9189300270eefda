"""Every call in `docs/api.md` answers as the page says, and no answer to anything is a failure of the service."""

import json
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecasting.job_worker import work
from infra.schema import METRIC_NAMES
from tests.integration.serving import save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS, lines_of

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("docs")
    save_model(toy_store, "toy", folder / "models")
    chosen = service_settings(
        toy_store,
        folder,
        api={"ingestion": True},
        spool={"path": folder / "spool.db"},
        jobs={**JOBS, "max_active": 1000, "max_active_per_key": 1000},
    )
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(chosen, "docs", stop), daemon=True)
    with served(chosen) as client:
        worker.start()
        yield client
    stop.set()
    worker.join(60)


def test_every_call_of_the_page_answers_as_it_says(client: httpx.Client) -> None:
    job, calls = "", 0
    for line in re.findall(r"^curl .*$", PAGE, re.MULTILINE):
        command, _, status = line.rpartition("#")
        words = shlex.split(command.replace("$URL", BASE).replace("$JOB", job))[1:]
        method, url, headers, body, is_endless = "GET", "", {}, None, False
        while words:
            word = words.pop(0)
            if word == "-X":
                method = words.pop(0)
            elif word == "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            elif word == "-d":
                body = words.pop(0)
            elif word == "-N":
                is_endless = True
            else:
                url = word
        request = client.build_request(method, url.removeprefix(BASE), headers=headers, content=body)
        answer = client.send(request, stream=True)
        if is_endless:
            assert next(answer.iter_bytes())
            answer.close()
        else:
            answer.read()
        assert answer.status_code == int(status), f"{line}\n{answer}"
        if "/v1/forecasts/" in answer.headers.get("location", ""):
            job = answer.headers["location"]
            assert lines_of(client, job)[-1]["status"] == "done"
        calls += 1
    assert calls >= 20


def test_the_problem_on_the_page_is_the_one_that_comes(client: httpx.Client) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    found = client.get("/v1/graphs/toy/forecast?horizon=0").json()
    assert json.loads(shown).items() <= found.items()


def test_the_page_names_every_route(client: httpx.Client) -> None:
    for path in client.get("/openapi.json").json()["paths"]:
        shown = path.replace("{graph}", "town" if path.endswith("/events") else "toy").replace(
            "/v1/forecasts/{forecast}", "$JOB"
        )
        shown = shown.replace("{report}", "0" * 32).replace("{alert}", "0" * 32)
        shown = shown.replace("/v1/alert-rules/{name}", "/v1/alert-rules/quiet").replace("{name}", "monday")
        assert f"$URL{shown}" in PAGE, path


TEXT = st.text(max_size=30) | st.sampled_from(
    ["toy", "events", "0.1", "24", "-1", "*", "%00", "../..", "\x00", *METRIC_NAMES]
)
NAMES = st.sampled_from(["horizon", "metrics", "quantiles", "format", "start", "end", "limit", "cursor"]) | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(["horizon", "metrics", "quantiles", "seed"]) | TEXT, JSON, max_size=4)


def well_answered(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        document = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert document["status"] == answer.status_code
        assert document["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    part=st.sampled_from(["", "/forecast", "/snapshots", "/forecasts"]),
    graph=st.just("toy") | TEXT,
    parameters=st.lists(st.tuples(NAMES, TEXT), max_size=3),
)
def test_any_query_is_answered(client: httpx.Client, part: str, graph: str, parameters: list[tuple[str, str]]) -> None:
    path = "/v1/graphs/" + "".join(f"%{byte:02x}" for byte in graph.encode()) + part
    well_answered(client.get(path, params=parameters))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(body=BODIES.map(json.dumps).map(str.encode) | JSON.map(json.dumps).map(str.encode) | st.binary(max_size=40))
def test_any_body_is_answered(client: httpx.Client, body: bytes) -> None:
    well_answered(client.post("/v1/graphs/toy/forecasts", content=body))
    well_answered(client.post("/v1/graphs/town/events", content=body))
