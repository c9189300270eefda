"""Shared answers: what is kept comes back, what is no answer is dropped, and a store that is away is left alone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from forecasting.api.redis_store import RedisStore
from forecasting.api.shared_cache import MAX_VALUE_BYTES, SharedCache, name_of, opened, sealed
from forecasting.api.telemetry import Telemetry
from infra.breaker import Breaker
from infra.errors import UsageError
from infra.settings import CacheSettings

KEY = ("g", "digest", 1, ("events",))


class Memory:
    """A store that can be made to fail, or to hang."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.is_away = False
        self.is_slow = False
        self.asked = 0

    async def get(self, name: str, max_bytes: int) -> bytes | None:
        await self._ask()
        found = self.kept.get(name)
        return None if found is None else found[:max_bytes]

    async def put(self, name: str, value: bytes, lifetime_s: int) -> None:
        assert lifetime_s == 60
        await self._ask()
        self.kept[name] = value

    async def ping(self) -> None:
        await self._ask()

    async def close(self) -> None: ...

    async def _ask(self) -> None:
        self.asked += 1
        if self.is_slow:
            await asyncio.sleep(30)
        if self.is_away:
            raise ConnectionError("refused")


class Bench:
    """A shared cache over a memory, with a clock that a test moves."""

    def __init__(self, lifetime_s: int = 60) -> None:
        self.now_s = 0.0
        self.store, self.telemetry = Memory(), Telemetry()
        breaker = Breaker(failures=2, pause_s=5, clock_s=lambda: self.now_s)
        self.shared = SharedCache(
            self.store, lifetime_s=lifetime_s, timeout_s=0.02, breaker=breaker, telemetry=self.telemetry
        )

    def counted(self, result: str) -> float:
        return float(self.telemetry.registry.get_sample_value("graphtide_shared_cache_total", {"result": result}) or 0)

    async def keep(self, key: tuple[object, ...], body: bytes) -> None:
        self.shared.put(key, body)
        while self.shared._writing:
            await asyncio.sleep(0)


def run(use: Callable[[Bench], Awaitable[None]], lifetime_s: int = 60) -> Bench:
    async def go() -> Bench:
        bench = Bench(lifetime_s)
        await use(bench)
        await bench.shared.close()
        return bench

    return asyncio.run(go())


def test_an_answer_comes_back_and_another_key_finds_nothing() -> None:
    async def use(bench: Bench) -> None:
        await bench.keep(KEY, b"body")
        assert await bench.shared.get(KEY) == b"body"
        assert await bench.shared.get((*KEY, "more")) is None

    bench = run(use)
    assert (bench.counted("hit"), bench.counted("miss")) == (1, 1)


def test_what_is_no_answer_is_dropped_and_written_anew() -> None:
    async def use(bench: Bench) -> None:
        name = name_of(KEY)
        good = sealed(name, b'{"a":1}')
        other = sealed(name_of(("h",)), b'{"a":1}')
        broken = [b"", b"x", b'{"a":2}', good[:-1], good[:20], good[:-1] + b"\x00", good + b"x", other, good[::-1]]
        too_long = sealed(name, b"x" * (MAX_VALUE_BYTES + 1))
        for value in (*broken, too_long):
            bench.store.kept[name] = value
            assert await bench.shared.get(KEY) is None, value[:40]
        await bench.keep(KEY, b'{"a":1}')
        assert await bench.shared.get(KEY) == b'{"a":1}'
        assert bench.shared.is_reached, "a damaged value is no outage"

    assert run(use).counted("dropped") == 10


def test_every_bit_of_a_value_counts() -> None:
    name = name_of(KEY)
    good = sealed(name, b"body")
    assert opened(name, good) == b"body"
    for place in range(len(good)):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[place] ^= 1 << bit
            assert opened(name, bytes(damaged)) is None


def test_a_store_that_is_away_is_left_alone_told_once_and_found_again(caplog: pytest.LogCaptureFixture) -> None:
    async def use(bench: Bench) -> None:
        bench.store.is_away = True
        for _ in range(10):
            assert await bench.shared.get(KEY) is None
        assert bench.store.asked == 4, "two tries each of the two calls that open the breaker"
        assert (bench.counted("failed"), bench.counted("skipped")) == (2, 8)
        assert not bench.shared.is_reached
        assert bench.telemetry.registry.get_sample_value("graphtide_shared_cache_up") == 0
        bench.store.is_away = False
        assert not await bench.shared.look(), "it is left alone for its pause"
        bench.now_s = 6.0
        assert await bench.shared.look()
        assert bench.telemetry.registry.get_sample_value("graphtide_shared_cache_up") == 1

    with caplog.at_level(logging.WARNING):
        run(use)
    assert [record.message for record in caplog.records] == [
        "the shared cache is not reached, each process keeps its own answers: refused",
        "the shared cache is reached again",
    ]


def test_one_failure_is_tried_again_and_no_outage() -> None:
    async def use(bench: Bench) -> None:
        async def fails_once() -> None:
            bench.store.is_away = bench.store.asked == 0
            await Memory._ask(bench.store)

        bench.store._ask = fails_once  # type: ignore[method-assign]
        assert await bench.shared.look()
        assert bench.store.asked == 2

    assert run(use).counted("failed") == 0


def test_a_store_that_hangs_is_given_up_and_what_is_written_piles_up_nowhere() -> None:
    async def use(bench: Bench) -> None:
        bench.store.is_slow = True
        for number in range(1000):
            bench.shared.put((number,), b"x")
        assert len(bench.shared._writing) == 64
        assert await bench.shared.get(KEY) is None

    assert run(use).counted("hit") == 0


def test_nothing_is_kept_without_a_lifetime_or_beyond_the_size() -> None:
    async def without(bench: Bench) -> None:
        await bench.keep(KEY, b"x")
        assert not bench.store.kept

    async def too_large(bench: Bench) -> None:
        await bench.keep(KEY, b"x" * (MAX_VALUE_BYTES + 1))
        assert not bench.store.kept

    run(without, lifetime_s=0)
    run(too_large)


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://h:1/0", "redis://", "redis://h:0", "redis://h:99999/0", "redis://h/x", "redis://h/0?a=b",
     "unix://"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not the address of a Redis") as refused:
        RedisStore(CacheSettings(redis_url=url))
    assert refused.value.place == "[cache] redis_url"


def test_a_password_has_no_place_in_the_address_and_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a password does not belong") as refused:
        RedisStore(CacheSettings(redis_url="redis://u:hunter2@h:6379/0"))
    assert "hunter2" not in str(refused.value)
    missing = CacheSettings(redis_url="redis://h:6379/0", redis_password_file=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot be read"):
        RedisStore(missing)


def test_connections_that_do_not_close_in_time_are_no_other_failure() -> None:
    async def lost(*_: object) -> bytes:
        raise RedisConnectionError("Connection reset by peer")

    async def not_closed(**_: object) -> None:
        raise RedisTimeoutError("Timed out closing connection after 0.1")

    async def go() -> None:
        store = RedisStore(CacheSettings(redis_url="redis://h:6379/0"))
        pool = SimpleNamespace(disconnect=not_closed)
        store._redis = SimpleNamespace(getrange=lost, connection_pool=pool, aclose=not_closed)
        with pytest.raises(ConnectionError, match="reset by peer"):
            await store.get("name", 10)
        await store.close()

    asyncio.run(go())
