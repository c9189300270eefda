"""The forecast service over a real socket: what it answers, and what it refuses."""

import csv
import io
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from forecasting.rollouts import Rollouts
from infra.errors import ModelError
from infra.schema import METRIC_NAMES, ORDER_CONSTRAINTS, QUANTILE_LEVELS
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from stream.store import open_reader
from tests.conftest import Ran
from tests.integration.serving import problem, save_model, served, service_settings, write_events

FORECAST = "/v1/graphs/toy/forecast"


@pytest.fixture(scope="module")
def folder(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    save_model(toy_store, "toy", folder / "models")
    return folder


@pytest.fixture(scope="module")
def client(toy_store: str, folder: Path) -> Iterator[httpx.Client]:
    """A service without keys over the graph `toy`."""
    with served(service_settings(toy_store, folder)) as client:
        yield client


def test_graphs_and_one_of_them(client: httpx.Client) -> None:
    (found,) = client.get("/v1/graphs").json()["graphs"]
    assert (found["graph"], found["step"], found["late"]) == ("toy", "1h", 0)
    one = client.get("/v1/graphs/toy").json()
    assert one["snapshots"] == found["snapshots"] > 2000
    assert [metric["name"] for metric in one["metrics"]] == list(METRIC_NAMES)


def test_snapshots_page_by_page_are_those_of_the_store(client: httpx.Client, toy_store: str) -> None:
    rows: list[dict[str, Any]] = []
    query = {"limit": "900", "metrics": "events,reciprocity", "start": "2021-01-05"}
    cursor: str | None = None
    for _ in range(10):
        page = client.get("/v1/graphs/toy/snapshots", params=query | ({"cursor": cursor} if cursor else {})).json()
        rows += page["rows"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert cursor is None
    with open_reader(toy_store) as reader:
        table = reader.snapshots("toy", start_us=1_609_804_800_000_000, metrics=("events", "reciprocity"))
    assert rows[0]["step_start"] == "2021-01-05T00:00:00Z"
    assert [[row["events"], row["reciprocity"]] for row in rows] == table.values.tolist()
    assert all(isinstance(row["events"], int) for row in rows)


@pytest.mark.parametrize(
    ("start", "end", "n"),
    [
        ("2021-02-01T00:30", "2021-02-01T03:00", 2),  # steps that start within the range
        ("2021-02-01", "2021-02-01", 0),
        ("2021-02-02", "2021-02-01", 0),
        ("1900-01-01", "2021-01-04T04:00", 2),
        ("2090-01-01", "2091-01-01", 0),
    ],
)
def test_ranges_of_snapshots(client: httpx.Client, start: str, end: str, n: int) -> None:
    found = client.get("/v1/graphs/toy/snapshots", params={"start": start, "end": end}).json()
    assert (len(found["rows"]), found["next_cursor"]) == (n, None)


def test_a_forecast_has_kserves_names_its_provenance_and_every_invariant(client: httpx.Client) -> None:
    answer = client.get(FORECAST, params={"horizon": "48"})
    assert answer.headers["graphtide-degraded"] == "false"
    assert int(answer.headers["graphtide-data-age"]) > 0
    body = answer.json()
    assert (body["graph"], body["horizon"]) == ("toy", 48)
    about = body["provenance"]
    assert len(about["model_digest"]) == 64
    assert (about["model"], about["degraded"], about["calibrated_until_step"]) == ("mamba2", False, 0)
    assert about["calibrated_on"] == "this graph"
    assert about["observed_until"] == body["outputs"][0]["start_timestamp"]
    assert [one["name"] for one in body["outputs"]] == list(METRIC_NAMES)
    values = {}
    for one in body["outputs"]:
        assert (one["type"], one["frequency"], len(one["mean_forecast"])) == ("time_series_forecast", "1h", 48)
        assert list(one["quantiles"]) == [f"{level:g}" for level in QUANTILE_LEVELS]
        levels = np.array(list(one["quantiles"].values()))
        assert (np.diff(levels, axis=0) >= 0).all()
        assert (levels >= 0).all()
        values[one["name"]] = np.vstack([levels, one["mean_forecast"]])
    for smaller, larger in ORDER_CONSTRAINTS:
        assert (values[smaller] <= values[larger]).all(), (smaller, larger)
    for total in ("total_nodes", "total_edges"):
        assert (np.diff(values[total], axis=1) >= 0).all()


def test_the_numbers_are_those_of_the_command_line(
    client: httpx.Client, toy_store: str, folder: Path, graphtide: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", toy_store)
    monkeypatch.setenv("GRAPHTIDE_MODELS__DIRECTORY", str(folder / "models"))
    ran = graphtide("forecast", "toy", "--horizon", 30, "--format", "csv")
    assert ran.code == 0
    by_hand = list(csv.DictReader(io.StringIO(ran.out)))
    rows = client.get(FORECAST, params={"horizon": "30", "format": "long"}).json()["rows"]
    expected = {(row.pop("metric"), row.pop("step_start")): row for row in by_hand}
    assert len(rows) == len(expected) == 30 * len(METRIC_NAMES)
    for row in rows:
        graph, _, metric = row.pop("unique_id").partition("/")
        assert graph == "toy"
        other = expected[metric, row.pop("ds")]
        assert list(row) == list(other)
        assert list(row.values()) == pytest.approx([float(value) for value in other.values()], rel=1e-4, abs=1e-4)


def test_a_shorter_forecast_is_the_beginning_of_a_longer_one(client: httpx.Client) -> None:
    short, whole = (client.get(FORECAST, params={"horizon": steps}).json() for steps in ("5", "168"))
    for a, b in zip(short["outputs"], whole["outputs"], strict=True):
        assert a["mean_forecast"] == b["mean_forecast"][:5]


def test_an_unchanged_forecast_costs_a_304(client: httpx.Client) -> None:
    for path in (FORECAST, "/v1/graphs", "/v1/graphs/toy/snapshots"):
        first = client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    other = client.get(
        FORECAST, params={"horizon": "7"}, headers={"If-None-Match": client.get(FORECAST).headers["etag"]}
    )
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("horizon=0", "horizon"),
        ("horizon=-1", "horizon"),
        ("horizon=1e2", "horizon"),
        ("horizon=", "horizon"),
        ("horizon=99999999999999999999", "horizon"),
        ("horizon=%C2%B2", "horizon"),
        ("metrics=events,evnts", "metrics"),
        ("metrics=", "metrics"),
        ("quantiles=0.55", "quantiles"),
        ("quantiles=nan", "quantiles"),
        ("format=xml", "format"),
        ("horizn=3", "horizn"),
        ("horizon=3&horizon=4", "horizon"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_limits_and_an_example(
    client: httpx.Client, query: str, field: str
) -> None:
    (error,) = problem(client.get(f"{FORECAST}?{query}"), 422, "invalid-parameter")["errors"]
    assert error["field"] == field
    assert error["allowed"]
    assert error["example"]


@pytest.mark.parametrize(
    "query", ["start=yesterday", "end=2021-13-01", "limit=0", "limit=10001", "cursor=!", "cursor=MTp4"]
)
def test_a_wrong_range_is_named(client: httpx.Client, query: str) -> None:
    (error,) = problem(client.get(f"/v1/graphs/toy/snapshots?{query}"), 422, "invalid-parameter")["errors"]
    assert error["field"] == query.partition("=")[0]


def test_a_long_horizon_is_led_to_the_jobs(client: httpx.Client) -> None:
    found = problem(client.get(FORECAST, params={"horizon": "169"}), 422, "invalid-parameter")
    assert (found["maximum"], found["errors"][0]["example"]) == (168, 168)
    assert found["long_range"]["href"] == "/v1/graphs/toy/forecasts"


def test_what_is_not_there(client: httpx.Client) -> None:
    assert problem(client.get("/v1/graphs/toi/forecast"), 404, "unknown-graph")["near"] == ["toy"]
    assert problem(client.get("/v1/graphs/xyz%0a/snapshots"), 404, "unknown-graph")["near"] == []
    problem(client.get("/v1/nothing"), 404, "not-found")
    assert client.post("/v1/graphs").headers["allow"] == "GET, HEAD"
    problem(client.put("/v1/graphs"), 405, "method-not-allowed")


def test_bodies_are_bounded(client: httpx.Client) -> None:
    problem(client.post("/v1/graphs", content=b"x" * 70_000), 413, "too-large")

    def unannounced() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 5000

    # A body in chunks has no length; nothing reads it here, so nothing is kept of it either.
    assert client.post("/v1/graphs", content=unannounced()).status_code in {405, 413}


def test_health_and_meters(client: httpx.Client) -> None:
    found = client.get("/health")
    assert found.status_code == 200
    assert found.json()["checks"] | {"gpu_available": None} == {
        "model_loaded": True,
        "gpu_available": None,
        "database_connected": True,
        "service_file_open": True,
        "store_followed": True,
    }
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "failed": []}
    client.get(FORECAST)
    meters = client.get("/metrics").text
    assert re.search(
        r'graphtide_http_requests_total\{.*route="/v1/graphs/\{graph\}/forecast",status="200"\} \d', meters
    )
    assert "graphtide_store_up 1.0" in meters


def test_every_answer_has_security_headers_and_a_request_id(client: httpx.Client) -> None:
    seen = set()
    for path in ("/livez", FORECAST, "/nothing", "/v1/graphs/none"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        seen.add(headers["x-request-id"])
    assert len(seen) == 4


def test_openapi_lists_every_resource(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/graphs", "/v1/graphs/{graph}/forecast", "/v1/graphs/{graph}/snapshots", "/health"} <= set(paths)
    named = {parameter["name"] for parameter in paths["/v1/graphs/{graph}/forecast"]["get"]["parameters"]}
    assert named == {"graph", "horizon", "metrics", "quantiles", "format", "paths", "seed"}


def wait_for_meters(client: httpx.Client, *lines: str) -> None:
    for _ in range(2000):
        meters = client.get("/metrics").text
        if all(line in meters for line in lines):
            return
    pytest.fail(f"never came to {lines}")


class Held:
    """Holds rollouts until it is opened; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.begun = threading.Event()
        self.calls = 0
        steps = Rollouts.steps

        def held(kept: Rollouts, *arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self.begun.set()
            assert self.opened.wait(60)
            return steps(kept, *arguments, **options)

        monkeypatch.setattr(Rollouts, "steps", held)


def test_equal_requests_share_the_work_and_a_full_queue_sheds(
    toy_store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(service_settings(toy_store, folder, api={"queue_size": 2})) as client:
        client.get(FORECAST, params={"horizon": "3"})
        held = Held(monkeypatch)
        with ThreadPoolExecutor(10) as pool:
            first = pool.submit(client.get, FORECAST, params={"horizon": "10"})
            assert held.begun.wait(60)
            equal = [pool.submit(client.get, FORECAST, params={"horizon": "10"}) for _ in range(6)]
            second = pool.submit(client.get, FORECAST, params={"horizon": "11"})
            wait_for_meters(client, "graphtide_forecast_queue_length 2.0", "graphtide_forecast_shared_total 6.0")
            refused = client.get(FORECAST, params={"horizon": "12"})
            problem(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            held.opened.set()
            answers = [waiting.result() for waiting in (first, *equal, second)]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert len({answer.content for answer in answers[:7]}) == 1
        assert held.calls == 2


def test_no_cache_computes_anew_and_gives_the_same_bytes(
    toy_store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(service_settings(toy_store, folder)) as client:
        first = client.get(FORECAST)
        held = Held(monkeypatch)
        held.opened.set()
        assert client.get(FORECAST).content == first.content
        assert held.calls == 0
        for calls in (1, 2):
            again = client.get(FORECAST, headers={"Cache-Control": "no-cache"})
            assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
            assert held.calls == calls


def test_requests_past_the_routes_are_counted_and_refused_as_all_others(client: httpx.Client) -> None:
    client.get(FORECAST, params={"horizon": "2"})
    assert 'route="/v1/graphs/{graph}/forecast",status="200"' in client.get("/metrics").text
    assert client.post(FORECAST).headers["allow"] == "GET, HEAD"
    problem(client.get("/v1/graphs//forecast"), 404, "not-found")
    problem(client.get("/v1/graphs/a%2Fb/forecast"), 404, "not-found")
    problem(client.get("/v1/graphs/forecast"), 404, "unknown-graph")


def test_a_late_answer_is_a_503_and_the_next_one_comes(
    toy_store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(service_settings(toy_store, folder)) as warm:
        warm.get(FORECAST)
    with served(service_settings(toy_store, folder, api={"deadline_s": 0.5})) as client:
        held = Held(monkeypatch)
        problem(client.get(FORECAST), 503, "deadline")
        held.opened.set()
        for _ in range(20):
            if client.get(FORECAST).status_code == 200:
                break
        assert client.get(FORECAST).status_code == 200


def test_where_the_model_fails_the_floor_answers_and_says_so(
    toy_store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.forecaster import MambaForecaster  # noqa: PLC0415

    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise ModelError("it exploded at /secret/place")

    monkeypatch.setattr(MambaForecaster, "rollout", fail)
    with served(service_settings(toy_store, folder)) as client:
        answer = client.get(FORECAST)
        assert answer.status_code == 200
        about = answer.json()["provenance"]
        assert (about["model"], about["model_digest"], about["degraded"]) == ("profile_level", None, True)
        assert "secret" not in answer.text
        assert answer.headers["graphtide-degraded"] == "true"
        assert 'graphtide_forecast_degraded_total{graph="toy"} 1.0' in client.get("/metrics").text


def test_without_a_model_the_general_one_answers_and_nothing_is_trained(toy_store: str, tmp_path: Path) -> None:
    with served(service_settings(toy_store, tmp_path)) as client:
        about = client.get(FORECAST).json()["provenance"]
        assert (about["model"], about["degraded"], about["degraded_reason"]) == ("mamba2-general", False, None)
        assert about["calibrated_until_step"] > 168
        assert about["calibrated_on"] == "other graphs"
        assert client.get(f"{FORECAST}?format=long").json()["provenance"] == about
        assert client.get("/health").json()["status"] == "ok"
    assert not (tmp_path / "models").exists()


def test_a_graph_too_young_for_a_model_is_answered_by_the_floor(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    ingest(FileSource(write_events(tmp_path / "a.ndjson", range(30)), DecodeOptions(graph="g")), url, IngestOptions())
    with served(service_settings(url, tmp_path)) as client:
        about = client.get("/v1/graphs/g/forecast").json()["provenance"]
        assert (about["model"], about["degraded"], about["calibrated_until_step"]) == ("profile_level", True, None)
        assert about["calibrated_on"] is None
        assert "too few for a model" in about["degraded_reason"]


def test_the_service_follows_its_store_from_nothing(tmp_path: Path) -> None:
    url, options = f"sqlite:///{tmp_path}/store.db", DecodeOptions(graph="g")
    with served(service_settings(url, tmp_path)) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/health").json()["failed"] == ["database_connected"]
        problem(client.get("/v1/graphs/g/forecast"), 503, "store-unavailable")
        seen = []
        for number, hours in enumerate((range(40), range(40, 60))):
            log = write_events(tmp_path / f"{number}.ndjson", hours)
            ingest(FileSource(log, options), url, IngestOptions())
            for _ in range(2000):
                answer = client.get("/v1/graphs/g/forecast", params={"metrics": "events"})
                if answer.status_code == 200 and answer.headers["etag"] not in seen:
                    break
            seen.append(answer.headers["etag"])
            until = answer.json()["provenance"]["snapshots"]
            with open_reader(url) as reader:
                assert until == reader.graph("g").snapshots
        assert client.get("/readyz").status_code == 200
