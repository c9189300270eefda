"""The client against a real service: frames in and out, jobs and streams that go on, refusals that are told."""

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from forecasting.job_worker import work
from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile
from graphtide import ApiError, AsyncClient, Client, JobFailedError, UnreachableError
from infra.settings import Settings
from stream.spool.file import Spool
from stream.store import open_reader
from tests.integration.serving import save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS


@pytest.fixture(scope="module")
def settings(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("client")
    save_model(toy_store, "toy", folder / "models")
    return service_settings(
        toy_store, folder, api={"ingestion": True, "max_page_rows": 700}, spool={"path": folder / "spool.db"}, jobs=JOBS
    )


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(settings, "client", stop), daemon=True)
    with served(settings) as http:
        worker.start()
        yield str(http.base_url)
    stop.set()
    worker.join(60)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


class Breaking(httpx.HTTPTransport):
    """A network that breaks each stream after some bytes, and answers 503 now and then."""

    def __init__(self, break_after: int) -> None:
        super().__init__()
        self.breaks = 0
        self.refusals = 0
        self._break_after = break_after

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/stream"):
            return super().handle_request(request)
        if self.breaks % 2 and not self.refusals:
            self.refusals += 1
            return httpx.Response(503, headers={"Retry-After": "0"}, json={"detail": "later"})
        answer = super().handle_request(request)
        answer.stream = _Broken(answer.stream, self)
        return answer

    def cut(self, so_far: int) -> bool:
        if so_far < self._break_after:
            return False
        self.breaks += 1
        return True


class _Broken(httpx.SyncByteStream):
    def __init__(self, inner: Any, transport: Breaking) -> None:
        self._inner = inner
        self._transport = transport

    def __iter__(self) -> Iterator[bytes]:
        so_far = 0
        for piece in self._inner:
            yield piece
            so_far += len(piece)
            if self._transport.cut(so_far):
                raise httpx.ReadError("cut")

    def close(self) -> None:
        self._inner.close()


def test_what_was_observed_comes_as_a_frame(client: Client, toy_store: str) -> None:
    (found,) = client.graphs()
    assert found == client.graph("toy")
    frame = client.snapshots("toy", metrics=["events", "reciprocity"])
    with open_reader(toy_store) as reader:
        table = reader.snapshots("toy", metrics=("events", "reciprocity"))
    assert list(frame.columns) == ["revision", "events", "reciprocity"]
    assert np.array_equal(frame[["events", "reciprocity"]].to_numpy(float), table.values)
    assert frame.index[0] == found.first_step
    assert frame.index[-1] == found.last_step
    part = client.snapshots("toy", start=found.first_step, end="2021-01-04T06:00:00Z")
    assert (part.index < pd.Timestamp("2021-01-04T06:00:00Z")).all()
    assert client.snapshots("toy", start="2090-01-01").empty


def test_a_short_forecast(client: Client) -> None:
    forecast = client.forecast("toy", 24, metrics=["events", "new_nodes"], quantiles=[0.1, 0.9])
    assert list(forecast.frame.columns) == ["step_start", "metric", "mean", "q0.1", "q0.9"]
    assert len(forecast.frame) == 48
    assert not forecast.degraded
    assert forecast.calibrated_on == "this graph"
    events = forecast.metric("events")
    assert events.index[0] == pd.Timestamp(forecast.provenance["observed_until"])
    assert (events.index[1:] - events.index[:-1] == pd.Timedelta(hours=1)).all()
    assert (events["q0.1"] <= events["q0.9"]).all()


def test_a_long_forecast_is_the_same_in_chunks_and_as_a_whole(client: Client, url: str) -> None:
    asked: dict[str, Any] = {"metrics": ["events"], "quantiles": [0.5]}
    job = client.ask("toy", 450, **asked, idempotency_key="one")
    assert client.ask("toy", 450, **asked, idempotency_key="one").id == job.id
    transport = Breaking(break_after=3000)
    with Client(url, transport=transport, sleep=lambda _: None) as shaken:
        chunks = list(shaken.chunks(job))
    assert transport.breaks >= 2
    assert transport.refusals == 1
    assert [chunk.first_step for chunk in chunks] == [0, 100, 200, 300, 400]
    whole = client.result(client.wait(job, progress=True))
    assert whole.provenance["state_step"]
    assert whole.calibrated_on == "this graph"
    together = pd.concat([chunk.frame for chunk in chunks], ignore_index=True)
    assert np.allclose(together[["mean", "q0.5"]], whole.frame[["mean", "q0.5"]], rtol=1e-6)
    pd.testing.assert_series_equal(together["step_start"], whole.frame["step_start"])
    rest = list(client.chunks(job, after_step=300))
    assert [chunk.first_step for chunk in rest] == [300, 400]
    short = client.long_forecast("toy", 30, **asked)
    assert np.allclose(short.frame["mean"], whole.frame["mean"][:30], rtol=1e-6)


def test_a_cancelled_job_is_an_error_to_who_waits(client: Client) -> None:
    job = client.ask("toy", 36_500)
    assert client.cancel(job.id).status == "cancelled"
    with pytest.raises(JobFailedError, match="cancelled"):
        client.wait(job)
    with pytest.raises(ApiError) as refused:
        client.result(job)
    assert (refused.value.status, refused.value.kind) == (409, "no-result")


def test_news_begin_with_the_last_snapshot(client: Client) -> None:
    news = client.live("toy", horizon=6, metrics=["events"])
    snapshot, forecast = next(news), next(news)
    assert (snapshot.kind, forecast.kind) == ("snapshot", "forecast")
    assert pd.Timestamp(snapshot.document["step_start"]) == client.graph("toy").last_step
    assert len(forecast.forecast().frame) == 6


def test_frames_and_objects_are_sent_once(client: Client, settings: Settings) -> None:
    frame = pd.DataFrame(
        {
            "src": ["ada", "ben", "cyd"],
            "dst": ["ben", "cyd", None],
            "ts": pd.to_datetime(["2026-03-06T12:00:00Z", "2026-03-06T12:30:00Z", "2026-03-06T13:00:00Z"]),
            "weight": [1.0, float("nan"), 2.0],
        }
    )
    for _ in range(2):
        taken = client.send("sent", frame, idempotency_key="frame")
        assert (taken.accepted, taken.rejected, [number for number, _ in taken.errors]) == (2, 1, [3])
    objects = [{"src": "a", "dst": "b", "ts": 1_772_800_000 + number} for number in range(5)]
    assert client.send("sent", objects, batch=2).accepted == 5
    with Spool(settings.spool.path) as spool:
        waiting = [request for request in spool.waiting(0, 1000) if request.graph == "sent"]
    assert [len(request.records) for request in waiting] == [3, 2, 2, 1]


def test_refusals_say_what_is_wrong(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.graph("toi")
    assert (refused.value.status, refused.value.kind) == (404, "unknown-graph")
    assert "toy" in str(refused.value)
    with pytest.raises(ApiError) as refused:
        client.forecast("toy", 0)
    assert refused.value.document["errors"][0]["field"] == "horizon"
    with pytest.raises(ApiError) as refused:
        next(client.live("toi"))
    assert refused.value.status == 404


def test_a_service_that_is_busy_is_asked_once_more() -> None:
    for status, retry_after, n_asked in ((503, "3", 2), (429, "0", 2), (503, None, 1), (503, "3600", 1), (500, "1", 1)):
        asked: list[httpx.Request] = []
        waited: list[float] = []

        def answer(
            request: httpx.Request,
            status: int = status,
            retry_after: str | None = retry_after,
            asked: list[httpx.Request] = asked,
        ) -> httpx.Response:
            asked.append(request)
            return httpx.Response(status, headers={"Retry-After": retry_after} if retry_after else {})

        with (
            Client("http://x", transport=httpx.MockTransport(answer), sleep=waited.append) as client,
            pytest.raises(ApiError) as refused,
        ):
            client.graphs()
        assert refused.value.status == status
        assert len(asked) == n_asked
        assert waited == ([float(retry_after or 0)] if n_asked == 2 else [])


def test_a_service_that_is_not_there_is_told() -> None:
    with Client("http://127.0.0.1:9", sleep=lambda _: None) as client:
        with pytest.raises(UnreachableError):
            client.graphs()
        with pytest.raises(UnreachableError, match="in a row"):
            next(client.live("toy"))


def test_a_read_whose_connection_breaks_is_repeated_and_nothing_else_is() -> None:
    asked: list[str] = []
    waited: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if len(asked) == 1:
            raise httpx.ReadError("the process was killed")
        return httpx.Response(200, json={"graphs": []})

    with Client("http://x", transport=httpx.MockTransport(answer), sleep=waited.append) as client:
        assert client.graphs() == []
        assert (asked, waited) == (["GET", "GET"], [0.25])
        asked.clear()
        with pytest.raises(UnreachableError):
            client.send("toy", [{"src": "a", "dst": "b", "ts": 0}])
        assert asked == ["POST"]


def test_keys_are_sent_and_never_shown(toy_store: str, tmp_path: Path) -> None:
    settings = service_settings(toy_store, tmp_path)
    with ServiceFile(settings.api.service_db) as file:
        token = Keys(file).create("reader", Scope.READ, ["toy"])[1]
    with served(settings) as http:
        with Client(str(http.base_url)) as client, pytest.raises(ApiError) as refused:
            client.graphs()
        assert refused.value.status == 401
        with Client(str(http.base_url), token) as client:
            assert [graph.graph for graph in client.graphs()] == ["toy"]
            with pytest.raises(ApiError) as refused:
                client.ask("toy", 5)
    assert token not in str(refused.value)
    assert token not in repr(refused.value.document)


def test_the_asynchronous_client_does_the_same(url: str, client: Client) -> None:
    async def first(news: AsyncIterator[Any]) -> Any:
        async for one in news:
            return one

    async def use() -> None:
        async with AsyncClient(url) as other:
            assert await other.graphs() == client.graphs()
            pd.testing.assert_frame_equal(await other.snapshots("toy"), client.snapshots("toy"))
            here, there = client.forecast("toy", 12), await other.forecast("toy", 12)
            pd.testing.assert_frame_equal(here.frame, there.frame)
            asked: dict[str, Any] = {"metrics": ["events"], "quantiles": [0.5]}
            long = await other.long_forecast("toy", 150, **asked, progress=True)
            assert len(long.frame) == 150
            assert (await first(other.live("toy"))).kind == "snapshot"
            assert (await other.send("sent", [{"src": "a", "dst": "b", "ts": 1_772_800_000}])).accepted == 1
            with pytest.raises(ApiError):
                await other.graph("toi")
            job = await other.ask("toy", 36_500)
            assert (await other.cancel(job.id)).is_final

    asyncio.run(use())


def test_the_page_on_the_client_does_what_it_says(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "http://127.0.0.1:8000" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("http://127.0.0.1:8000", url), {})
    assert len(pd.read_parquet("toy.parquet")) == 2000
    for name in re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*?\|", page, re.MULTILINE))):
        assert hasattr(Client, name), name


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = {name: one for name, one in vars(kind).items() if not name.startswith("_") and callable(one)}
        return {name: list(inspect.signature(one).parameters) for name, one in public.items()}

    assert methods(Client) == methods(AsyncClient)
