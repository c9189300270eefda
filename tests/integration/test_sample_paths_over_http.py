"""Sample paths over HTTP, in jobs, files, the client and the command line: the same futures everywhere."""

import csv
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forecasting.job_worker import work
from forecasting.live import LiveState, LiveStates
from graphtide import Client
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, ORDER_CONSTRAINTS, RUNNING_TOTALS, Kind
from infra.settings import Settings
from stream.store import open_reader
from tests.conftest import Ran
from tests.integration.serving import problem, save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS, done, lines_of

FORECAST = "/v1/graphs/toy/forecast"
ASK = "/v1/graphs/toy/forecasts"
MOST_VALUES = 20_000  # less than 168 steps of 18 metrics times 7


@pytest.fixture(scope="module")
def settings(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("paths")
    save_model(toy_store, "toy", folder / "models")
    return service_settings(toy_store, folder, api={"max_path_values": MOST_VALUES}, jobs=JOBS)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(settings, "paths", stop), daemon=True)
    with served(settings) as client:
        worker.start()
        yield client
    stop.set()
    worker.join(60)


@pytest.fixture(scope="module")
def live(settings: Settings) -> Iterator[LiveState]:
    with LiveStates(lambda: open_reader(settings.store.url), settings.models.directory, max_graphs=1) as states:
        yield states.state_of("toy")


def drawn(live: LiveState, steps: int, n_paths: int, seed: int, chunk_steps: int) -> np.ndarray:
    """Return the paths [P, H, M] of the model itself, as a report draws them, in the digits of an answer."""
    chunks = live.model.sample_paths(live.state, steps, n_paths=n_paths, chunk_steps=chunk_steps, seed=seed)
    return np.concatenate([chunk.values for chunk in chunks]).astype(np.float32).transpose(2, 0, 1)


def told(paths: dict[str, Any], names: tuple[str, ...] = METRIC_NAMES) -> np.ndarray:
    assert list(paths) == list(names)
    return np.stack([np.array(paths[name], dtype=np.float32) for name in names], axis=-1)


def test_every_path_of_a_short_answer_is_a_future_of_the_model(client: httpx.Client, live: LiveState) -> None:
    body = client.get(FORECAST, params={"horizon": "48", "paths": "5", "seed": "9"}).json()
    found = told(body["paths"])
    assert found.shape == (5, 48, len(METRIC_NAMES))
    assert body["provenance"]["seed"] == 9
    assert np.array_equal(found, drawn(live, 168, 5, 9, 168)[:, :48])
    for index, metric in enumerate(METRICS):
        assert (found[..., index] >= 0).all()
        if metric.kind is Kind.SHARE:
            assert (found[..., index] <= 1).all()
        else:
            assert np.array_equal(found[..., index], np.rint(found[..., index]))
    for smaller, larger in ORDER_CONSTRAINTS:
        assert (found[..., METRIC_INDEX[smaller]] <= found[..., METRIC_INDEX[larger]]).all(), (smaller, larger)
    for total, new in RUNNING_TOTALS:
        steps, news = np.diff(found[..., METRIC_INDEX[total]], axis=1), found[:, 1:, METRIC_INDEX[new]]
        assert np.array_equal(steps, news), "totals rise by what is new"


def test_paths_come_beside_the_same_quantiles(client: httpx.Client) -> None:
    wanted = {"horizon": "24", "metrics": "total_nodes,events"}
    with_paths, without = (client.get(FORECAST, params=wanted | more).json() for more in ({"paths": "3"}, {}))
    assert with_paths["outputs"] == without["outputs"]
    assert list(with_paths["paths"]) == ["total_nodes", "events"]
    assert "paths" not in without


def test_rows_have_a_column_a_path(client: httpx.Client) -> None:
    wanted = {"horizon": "6", "metrics": "events,new_nodes", "quantiles": "0.5", "paths": "4", "seed": "2"}
    rows = client.get(FORECAST, params=wanted | {"format": "long"}).json()["rows"]
    paths = client.get(FORECAST, params=wanted).json()["paths"]
    assert list(rows[0]) == ["unique_id", "ds", "mean", "q0.5", "path_0", "path_1", "path_2", "path_3"]
    for number, name in enumerate(("events", "new_nodes")):
        columns = [[row[f"path_{path}"] for row in rows[6 * number : 6 * (number + 1)]] for path in range(4)]
        assert columns == paths[name]


def test_the_tag_follows_seed_and_number_and_equal_requests_have_equal_bytes(client: httpx.Client) -> None:
    def ask(**more: str) -> httpx.Response:
        return client.get(FORECAST, params={"horizon": "12", "metrics": "events", **more})

    answers = [ask(), ask(paths="2"), ask(paths="3"), ask(paths="2", seed="1"), ask(seed="1")]
    assert len({answer.headers["etag"] for answer in answers}) == 5
    again = ask(paths="2", seed="1")
    assert (again.content, again.headers["etag"]) == (answers[3].content, answers[3].headers["etag"])
    kept = client.get(
        FORECAST,
        params={"horizon": "12", "metrics": "events", "paths": "2", "seed": "1"},
        headers={"If-None-Match": again.headers["etag"]},
    )
    assert kept.status_code == 304
    default = ask(seed="0")
    assert default.headers["etag"] == answers[0].headers["etag"], "the seed of the settings is 0"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("paths=0", "paths"),
        ("paths=7", "paths"),
        ("paths=x", "paths"),
        ("seed=-1", "seed"),
        ("seed=4294967296", "seed"),
    ],
)
def test_what_cannot_be_drawn_is_named(client: httpx.Client, query: str, field: str) -> None:
    (error,) = problem(client.get(f"{FORECAST}?{query}"), 422, "invalid-parameter")["errors"]
    assert error["field"] == field
    assert client.get(f"{FORECAST}?paths=6&seed=4294967295").status_code == 200


def test_without_a_narrow_limit_there_are_a_hundred(toy_store: str, settings: Settings, tmp_path: Path) -> None:
    roomy = service_settings(toy_store, tmp_path, models={"directory": settings.models.directory})
    with served(roomy) as client:
        assert len(client.get(f"{FORECAST}?paths=100&metrics=events").json()["paths"]["events"]) == 100
        assert problem(client.get(f"{FORECAST}?paths=101"), 422, "invalid-parameter")["maximum"] == 100


JOB = {"horizon": 250, "metrics": ["total_edges", "events"], "quantiles": [0.5], "seed": 4, "paths": 7}
NAMES = ("total_edges", "events")


def test_a_job_has_the_same_paths_by_chunks_at_once_and_in_every_file(client: httpx.Client, live: LiveState) -> None:
    here = done(client, JOB)
    expected = drawn(live, 250, 7, 4, JOBS["chunk_steps"])[..., [METRIC_INDEX[name] for name in NAMES]]
    assert client.get(here).json()["paths"] == 7
    whole = client.get(f"{here}/result").json()
    assert np.array_equal(told(whole["paths"], NAMES), expected)
    lines = lines_of(client, here)[:-1]
    assert np.array_equal(np.concatenate([told(line["paths"], NAMES) for line in lines], axis=1), expected)
    later = lines_of(client, here, 130)[0]
    assert np.array_equal(told(later["paths"], NAMES), expected[:, 130:200])
    columns = [f"path_{path}" for path in range(7)]

    def table(media_type: str) -> Any:
        content = client.get(f"{here}/result", headers={"Accept": media_type}).content
        if media_type == "text/csv":
            return pa.Table.from_pylist(list(csv.DictReader(io.StringIO(content.decode()))))
        return pq.read_table(io.BytesIO(content)) if "parquet" in media_type else pa.ipc.open_stream(content).read_all()

    for media_type in ("text/csv", "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"):
        found = table(media_type)
        assert found.column_names == ["step_start", "metric", "mean", "q0.5", *columns]
        values = np.array([found.column(name).to_pylist() for name in columns], dtype=np.float32)
        assert np.array_equal(values.reshape(7, 250, 2), expected), media_type
    again = client.get(f"{done(client, JOB)}/result").json()
    assert (again["paths"], again["outputs"]) == (whole["paths"], whole["outputs"])


def test_a_job_beyond_the_limit_is_refused_with_what_would_fit(client: httpx.Client) -> None:
    # 20,000 numbers at most: 40 paths of 250 steps and 2 metrics.
    refused = problem(client.post(ASK, json=JOB | {"paths": 41}), 422, "invalid-parameter")
    assert (refused["errors"][0]["field"], refused["maximum"]) == ("paths", 40)
    assert client.post(ASK, json=JOB | {"paths": 40}).status_code == 202
    for wrong in (-1, 101, "5", True, None, 1.5):
        (error,) = problem(client.post(ASK, json=JOB | {"paths": wrong}), 422, "invalid-parameter")["errors"]
        assert error["field"] == "paths"


def test_one_key_is_another_job_with_another_number(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "with-paths"}
    assert client.post(ASK, json=JOB, headers=headers).status_code == 202
    problem(client.post(ASK, json=JOB | {"paths": 6}, headers=headers), 422, "key-reused")


def test_the_client_has_them_as_columns(client: httpx.Client) -> None:
    with Client(str(client.base_url)) as ours:
        short = ours.forecast("toy", 12, metrics=NAMES, quantiles=[0.5], paths=3, seed=4)
        assert list(short.metric("events").columns) == ["mean", "q0.5"]
        paths = short.paths("events")
        assert paths.shape == (12, 3)
        plain = client.get(FORECAST, params={"horizon": "12", "metrics": "events", "paths": "3", "seed": "4"}).json()
        assert np.array_equal(paths.to_numpy().T, np.array(plain["paths"]["events"]))
        assert ours.forecast("toy", 12).paths("events").empty
        long = ours.long_forecast("toy", 150, metrics=["events"], paths=2, seed=4)
        assert long.paths("events").shape == (150, 2)
        job = ours.ask("toy", 150, metrics=["events"], paths=2, seed=4)
        parts = [chunk.frame["path_1"].to_numpy() for chunk in ours.chunks(job)]
        assert np.array_equal(np.concatenate(parts), long.paths("events")["path_1"].to_numpy())


def test_the_command_line_writes_the_same_paths(
    settings: Settings, live: LiveState, graphtide: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", settings.store.url)
    monkeypatch.setenv("GRAPHTIDE_MODELS__DIRECTORY", str(settings.models.directory))
    output = tmp_path / "out.parquet"
    asked = ("forecast", "toy", "--horizon", 60, "--metrics", "events", "--seed", 4, "--paths", 3)
    ran = graphtide(*asked, "--format", "parquet", "--output", output)
    assert ran.code == 0, ran.err
    found = pq.read_table(output)
    values = np.array([found.column(f"path_{path}").to_pylist() for path in range(3)], dtype=np.float32)
    assert np.array_equal(values, drawn(live, 60, 3, 4, 1024)[..., METRIC_INDEX["events"]])
    refused = graphtide(*asked)
    assert (refused.code, "--paths" in refused.err) == (2, True)
    refused = graphtide(*asked[:-1], 101, "--format", "csv")
    assert (refused.code, "--paths" in refused.err) == (2, True)
