"""What the service promises under pressure: it sheds what it cannot do, a key is one job, a stream is whole."""

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from forecasting.bench.api_systems import load
from forecasting.bench.http_load import Plan, get
from forecasting.bench.servers.service import GraphtideService
from forecasting.job_worker import work
from forecasting.rollouts import Rollouts
from infra.settings import Settings
from tests.integration.serving import save_model, served, service_settings

GRAPH = "/v1/graphs/toy"
JOBS = {"when_idle": False, "chunk_steps": 50, "lease_s": 2}
# A forecast that takes so long, so that what the service can do does not depend on the machine.
WORK_S = 0.02
QUEUE = 8


@pytest.fixture
def settings(toy_store: str, tmp_path: Path) -> Settings:
    save_model(toy_store, "toy", tmp_path / "models")
    return service_settings(toy_store, tmp_path, api={"queue_size": QUEUE}, jobs=JOBS)


@pytest.fixture
def slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Rollouts.steps

    def slow(kept: Rollouts, *arguments: Any, **options: Any) -> Any:
        time.sleep(WORK_S)
        return steps(kept, *arguments, **options)

    monkeypatch.setattr(Rollouts, "steps", slow)


@pytest.mark.usefixtures("slow_model")
def test_three_times_what_it_can_do_is_shed_and_who_is_admitted_waits_no_longer(settings: Settings) -> None:
    with served(settings) as client:
        client.get(f"{GRAPH}/forecast")
        port = client.base_url.port
        assert port is not None
        request = (get(f"{GRAPH}/forecast?horizon=5&metrics=events", Cache_Control="no-cache"),)
        # As many at once as are admitted: what it can do, and how long one takes when all places are taken.
        full = load(Plan(port, request, 3.0, QUEUE))
        assert set(full.statuses) == {"200"}
        over = load(Plan(port, request, 4.0, 200, 3 * full.per_s))
        refused = [client.get(f"{GRAPH}/forecast?horizon=5", headers={"Cache-Control": "no-cache"}) for _ in range(3)]
    assert over.failed == 0
    assert set(over.statuses) == {"200", "503"}
    # Most of it is refused, and what it could do before it still does.
    assert over.statuses["503"] > over.statuses["200"]
    assert over.per_s > full.per_s / 3
    assert over.percentile_ms(99) < 10 * full.percentile_ms(99)
    assert all(answer.status_code == 200 for answer in refused), "when it is over everyone is answered again"


@pytest.mark.usefixtures("slow_model")
def test_what_is_shed_says_when_to_come_again(settings: Settings) -> None:
    with served(settings) as client, ThreadPoolExecutor(4 * QUEUE) as pool:
        client.get(f"{GRAPH}/forecast")
        ask = {"headers": {"Cache-Control": "no-cache"}}
        answers = list(pool.map(lambda _: client.get(f"{GRAPH}/forecast", **ask), range(8 * QUEUE)))  # type: ignore[arg-type]
    shed = [answer for answer in answers if answer.status_code != 200]
    assert shed
    for answer in shed:
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:graphtide:problem:overloaded"
        assert int(answer.headers["retry-after"]) >= 1


def test_a_key_is_one_job_over_a_hundred_requests_and_a_restart(settings: Settings) -> None:
    asked, key = {"horizon": 400, "metrics": ["events"]}, {"Idempotency-Key": "once"}

    def jobs(client: httpx.Client, count: int) -> set[str]:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: client.post(f"{GRAPH}/forecasts", json=asked, headers=key), range(count)))
        assert {answer.status_code for answer in answers} == {202}
        replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
        first.append(replayed.count(None))
        return {answer.headers["location"] for answer in answers}

    first: list[int] = []
    with served(settings) as client:
        before = jobs(client, 100)
    with served(settings) as client:
        after = jobs(client, 20)
    assert before == after
    assert len(after) == 1
    assert first == [1, 0]


@pytest.fixture
def with_worker(settings: Settings) -> Iterator[httpx.Client]:
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(settings, "thread", stop), daemon=True)
    with served(settings) as client:
        worker.start()
        yield client
        stop.set()
        worker.join(60)


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_of_a_job_that_breaks_at_random_places_is_whole(with_worker: httpx.Client, seed: int) -> None:
    draw = random.Random(seed)
    asked = {"horizon": 700, "metrics": ["events"], "quantiles": [0.5]}
    here = with_worker.post(f"{GRAPH}/forecasts", json=asked).headers["location"]
    last, means, ended = 0, list[float](), ""
    while not ended:
        headers = {"Accept": "application/x-ndjson", "Last-Event-ID": str(last)}
        with with_worker.stream("GET", f"{here}/stream", headers=headers) as stream:
            leave_after = draw.randint(1, 4)
            for line in stream.iter_lines():
                if not line:
                    continue
                event = json.loads(line)
                if event["event"] == "end":
                    ended = event["status"]
                    break
                assert event["first_step"] == last
                last = event["last_step"]
                means += event["outputs"][0]["mean_forecast"]
                leave_after -= 1
                if leave_after == 0:
                    break
    assert ended == "done"
    (whole,) = with_worker.get(f"{here}/result").json()["outputs"]
    assert means == whole["mean_forecast"]
    assert len(means) == 700


def test_serving_processes_end_with_the_one_that_started_them(toy_store: str, tmp_path: Path) -> None:
    service = GraphtideService(
        tmp_path,
        toy_store,
        {"GRAPHTIDE_API__WORKERS": "2", "GRAPHTIDE_JOBS__WORKERS": "0", "GRAPHTIDE_API__DRAIN_S": "2"},
    )
    with service:
        workers = psutil.Process(service.pid).children(recursive=True)
        assert len(workers) >= 2
        psutil.Process(service.pid).kill()
        _, left = psutil.wait_procs(workers, timeout=60)
        assert left == [], "they would keep the port"
