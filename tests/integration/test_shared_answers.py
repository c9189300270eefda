"""Answers shared through a real Redis: between processes, while it is stopped and started, and against damage."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_library

from forecasting.api.redis_store import RedisStore
from forecasting.rollouts import Rollouts
from infra.settings import Settings
from tests import plain_http
from tests.integration.serving import save_model, served, service_settings
from tests.servers.redis import RedisServer

URL = "/v1/graphs/toy/forecast"
TIMEOUT_S = 2.0  # a busy machine is no outage
WAIT_S = 30


@pytest.fixture(scope="module")
def models(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "models"
    save_model(toy_store, "toy", folder)
    return folder


@pytest.fixture
def settings(toy_store: str, tmp_path: Path, models: Path, redis_url: str) -> Settings:
    cache = {"redis_url": redis_url, "timeout_s": TIMEOUT_S, "failures": 1, "pause_s": 0.3}
    return service_settings(toy_store, tmp_path, models={"directory": models}, cache=cache)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by each rollout of this process."""
    rollouts: list[int] = []
    steps = Rollouts.steps

    def counted(self: Rollouts, live: Any, horizon: int, **drawn: int) -> Any:
        rollouts.append(horizon)
        return steps(self, live, horizon, **drawn)

    monkeypatch.setattr(Rollouts, "steps", counted)
    return rollouts


@pytest.fixture
def kept(redis_url: str) -> Iterator[Any]:
    with redis_library.Redis.from_url(redis_url) as client:
        yield client


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sample(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


def ask(client: httpx.Client, horizon: int) -> httpx.Response:
    answer = client.get(URL, params={"horizon": str(horizon)})
    assert answer.status_code == 200
    return answer


def test_one_process_answers_with_what_another_computed(settings: Settings, computed: list[int], kept: Any) -> None:
    with served(settings) as one, served(settings) as two:
        first = ask(one, 20)
        until(lambda: kept.dbsize() == 1)
        second = ask(two, 20)
        assert (second.content, second.headers["etag"]) == (first.content, first.headers["etag"])
        assert computed == [20]
        assert sample(two, 'graphtide_shared_cache_total{result="hit"}') == 1
        assert ask(two, 20).content == first.content
        assert sample(two, 'graphtide_shared_cache_total{result="hit"}') == 1, "then it has one of its own"
        other = two.get(URL, params={"horizon": "20", "seed": "5"})
        assert other.content != first.content
        assert computed == [20, 20], "another seed is another answer"
        assert one.get("/health").json()["checks"]["redis_connected"] is True
        assert one.get("/readyz").json()["redis_connected"] is True
    (name,) = {key for key in kept.scan_iter() if kept.get(key).endswith(first.content)}
    lifetime_s = settings.api.cache_lifetime_s
    assert lifetime_s - 60 < kept.ttl(name) <= lifetime_s


def test_a_new_card_of_the_same_weights_is_another_answer(
    settings: Settings, computed: list[int], kept: Any, toy_store: str, tmp_path: Path
) -> None:
    """The card holds the calibration, which moves every quantile."""
    with served(settings) as client:
        first = ask(client, 12).json()["provenance"]
    until(lambda: kept.dbsize() == 1)
    card_path = save_card(toy_store, tmp_path / "other")
    other = service_settings(
        toy_store, tmp_path / "b", models={"directory": card_path}, cache=settings.cache.model_dump()
    )
    (tmp_path / "b").mkdir()
    with served(other) as client:
        second = ask(client, 12).json()["provenance"]
    assert second["model_digest"] == first["model_digest"]
    assert computed == [12, 12]


def save_card(toy_store: str, folder: Path) -> Path:
    save_model(toy_store, "toy", folder)
    card = folder / "toy" / "card.json"
    text = card.read_text()
    assert '"scores": {}' in text
    card.write_text(text.replace('"scores": {}', '"scores": {"a": 1}'))
    return folder


def test_values_that_are_none_are_never_served(settings: Settings, computed: list[int], kept: Any) -> None:
    with served(settings) as client:
        good = ask(client, 15)
    until(lambda: kept.dbsize() == 1)
    (name,) = kept.keys()
    value = kept.get(name)
    damaged = [b'{"graph":"toy"}', value[:-1], value[:-5] + b"00000", b"\x80\x04.", b"x" * (9 << 20)]
    for number, bad in enumerate(damaged, 1):
        kept.set(name, bad)
        with served(settings) as client:
            assert ask(client, 15).content == good.content
            assert sample(client, 'graphtide_shared_cache_total{result="dropped"}') == 1
        assert len(computed) == 1 + number
        until(lambda: kept.get(name) == value)
    kept.delete(name)
    kept.rpush(name, "a list, on which GETRANGE is an error")
    with served(settings) as client:
        assert ask(client, 15).content == good.content


def test_answers_stay_right_while_redis_is_stopped_and_started_under_load(
    settings: Settings, redis_server: RedisServer, kept: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # Without a cache of its own, a process asks the Redis each time.
    forgetful = settings.model_copy(update={"api": settings.api.model_copy(update={"cache_mb": 0})})
    with caplog.at_level(logging.WARNING, "forecasting.api.shared_cache"), served(forgetful) as client:
        expected = {horizon: ask(client, horizon).content for horizon in range(1, 40)}
        over, wrong, asked = threading.Event(), [], [0]

        def load() -> None:
            with plain_http.Client(base_url=client.base_url, timeout=60) as other:
                while not over.is_set():
                    for horizon, content in expected.items():
                        answer = other.get(URL, params={"horizon": str(horizon)})
                        if answer.status_code != 200 or answer.content != content:
                            wrong.append((horizon, answer.status_code))
                        asked[0] += 1

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                redis_server.kill()
                until(lambda: not redis_connected(client))
                ask(client, 167)
                assert client.get("/readyz").status_code == 200, "it is no required part"
                redis_server.start()
                until(lambda: redis_connected(client))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert asked[0] > len(expected)
        assert wrong == []
        hits = sample(client, 'graphtide_shared_cache_total{result="hit"}')
        ask(client, 20)
        ask(client, 20)
        assert sample(client, 'graphtide_shared_cache_total{result="hit"}') > hits
    told = [record.message for record in caplog.records]
    assert [message.partition(",")[0] for message in told] == [
        "the shared cache is not reached",
        "the shared cache is reached again",
    ] * 2, "each outage is told once"


def test_connections_from_before_an_outage_fail_once_together(settings: Settings, redis_server: RedisServer) -> None:
    async def talk() -> None:
        store = RedisStore(settings.cache)
        await asyncio.gather(*(store.ping() for _ in range(4)))
        redis_server.kill()
        redis_server.start()
        with pytest.raises(ConnectionError):
            await store.ping()
        await asyncio.gather(*(store.ping() for _ in range(4)))
        await store.close()

    asyncio.run(talk())


def redis_connected(client: httpx.Client) -> bool:
    found = client.get("/health").json()
    assert found["status"] == ("ok" if found["checks"]["redis_connected"] else "degraded")
    return bool(found["checks"]["redis_connected"])


def test_a_redis_that_hangs_costs_two_tries_and_then_nothing(settings: Settings, redis_server: RedisServer) -> None:
    impatient = settings.model_copy(
        update={"cache": settings.cache.model_copy(update={"timeout_s": 0.2, "pause_s": 60})}
    )
    with served(impatient) as client:
        ask(client, 3)
        redis_server.pause()
        try:
            ask(client, 4)
            until(lambda: sample(client, "graphtide_shared_cache_up") == 0)
            skipped = sample(client, 'graphtide_shared_cache_total{result="skipped"}')
            ask(client, 5)
            assert sample(client, 'graphtide_shared_cache_total{result="skipped"}') > skipped
        finally:
            redis_server.resume()


def test_a_wrong_password_is_told_and_answers_come_all_the_same(
    settings: Settings, kept: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.config_set("requirepass", "right")
    try:
        kept.auth("right")
        secret = tmp_path / "password"

        def connected(password: str) -> bool:
            secret.write_text(password + "\n")
            chosen = settings.cache.model_copy(update={"redis_password_file": str(secret)})
            with served(settings.model_copy(update={"cache": chosen})) as client:
                ask(client, 7)
                return redis_connected(client)

        assert connected("right")
        with caplog.at_level(logging.WARNING, "forecasting.api.shared_cache"):
            assert not connected("wr0ng-secret")
        (told,) = [record.getMessage() for record in caplog.records]
        assert "not reached" in told
        assert "password" in told.lower()
        assert "wr0ng-secret" not in caplog.text
    finally:
        with redis_library.Redis.from_url(settings.cache.redis_url, password="right") as client:
            client.config_set("requirepass", "")
