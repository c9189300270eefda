"""What the gate is made of: strangers in open mode, rates, content codings."""

import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from forecasting.api.compression import Coding, accepted_coding, compressed, compressing
from forecasting.api.open_mode import refuse_strangers
from forecasting.api.problems import Problem
from forecasting.api.rates import Rates


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, None),
        ({"host": "localhost"}, None),
        ({"host": "LOCALHOST:8000", "origin": "http://localhost:8000"}, None),
        ({"host": "[::1]:8000", "origin": "http://[::1]:8000"}, None),
        ({"host": "127.9.9.9"}, None),
        ({"host": "localhost", "origin": "http://localhost:80"}, None),
        ({}, 421),
        ({"host": ""}, 421),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, 421),
        ({"host": "192.168.1.7"}, 421),
        ({"host": "localhost:8000", "origin": "http://localhost:9000"}, 403),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
        ({"host": "localhost:8000", "origin": "http://["}, 403),
    ],
)
def test_open_mode_serves_this_machine_and_its_own_pages(headers: dict[str, str], status: int | None) -> None:
    if status is None:
        refuse_strangers(Headers(headers), only_loopback=True)
        return
    with pytest.raises(Problem) as refused:
        refuse_strangers(Headers(headers), only_loopback=True)
    assert refused.value.status == status


def test_behind_any_name_origins_are_still_compared() -> None:
    refuse_strangers(Headers({"host": "forecasts.example", "origin": "https://forecasts.example"}), only_loopback=False)
    with pytest.raises(Problem):
        refuse_strangers(Headers({"host": "forecasts.example", "origin": "https://evil.example"}), only_loopback=False)


def test_two_hosts_are_none() -> None:
    raw = [(b"host", b"localhost"), (b"host", b"evil.example")]
    with pytest.raises(Problem):
        refuse_strangers(Headers(raw=raw), only_loopback=True)


def test_a_key_may_ask_in_bursts_and_then_at_its_rate() -> None:
    now_s = 0.0
    rates = Rates(per_s=2, burst=3, clock_s=lambda: now_s)
    assert [rates.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    assert rates.wait_s("b") == 0
    now_s = 0.5
    assert [rates.wait_s("a") for _ in range(2)] == [0, 1]
    now_s = 100.0
    assert [rates.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]


@given(st.lists(st.floats(0, 5), max_size=50), st.floats(0.1, 10), st.integers(1, 10))
def test_no_key_gets_more_than_its_rate(gaps: list[float], per_s: float, burst: int) -> None:
    now_s = 0.0
    rates = Rates(per_s=per_s, burst=burst, clock_s=lambda: now_s)
    answered = 0
    for gap in gaps:
        now_s += gap
        answered += rates.wait_s("a") == 0
    assert answered <= burst + per_s * now_s + 1e-6


def test_whoever_waits_as_told_is_answered() -> None:
    now_s = 0.0
    rates = Rates(per_s=0.3, burst=1, clock_s=lambda: now_s)
    assert rates.wait_s("a") == 0
    for _ in range(20):
        wait_s = rates.wait_s("a")
        assert wait_s > 0
        now_s += wait_s
        assert rates.wait_s("a") == 0


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", Coding.GZIP),
        ("gzip, deflate, br, zstd", Coding.ZSTD),
        ("GZIP;q=1.0, zstd;q=0.5", Coding.GZIP),
        ("zstd;q=0, *;q=0.1", Coding.GZIP),
        ("gzip;q=x", None),
        ("gzip;q=0.5, identity", None),
    ],
)
def test_the_coding_that_is_wanted(header: str | None, coding: Coding | None) -> None:
    assert accepted_coding(header) == coding


@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_what_is_compressed_is_what_it_was(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert zstandard.decompress(compressed(whole, Coding.ZSTD)) == whole
    assert gzip.decompress(compressed(whole, Coding.GZIP)) == whole
    assert gzip.decompress(b"".join(compressing(iter(pieces), Coding.GZIP))) == whole
    streamed = b"".join(compressing(iter(pieces), Coding.ZSTD))
    assert zstandard.ZstdDecompressor().decompressobj().decompress(streamed) == whole
