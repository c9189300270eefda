"""Writing points to a server that fails: nothing is lost, what cannot succeed is said, waits are bounded."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from infra.errors import StoreError
from stream.store.influx.address import InfluxAddress
from stream.store.influx.connection import TooLargeError
from stream.store.influx.points import snapshot_lines
from stream.store.influx.writer import InfluxWriter, StoppedError
from tests.unit.stream.projection_cases import FakeInflux, some_snapshots


@pytest.fixture
def influx() -> Iterator[FakeInflux]:
    with FakeInflux() as fake:
        yield fake


def address_of(influx: FakeInflux) -> InfluxAddress:
    return InfluxAddress(
        url=influx.url,
        org="o",
        bucket="b",
        token="secret",
        batch_points=10,
        max_wait_s=0.05,
        timeout_s=5,
        settle_s=0.01,
    )


LINES = list(snapshot_lines(some_snapshots("toy", 95)))


def held(influx: FakeInflux) -> set[str]:
    return {f"{series} {fields} {time}" for (series, time), fields in influx.points.items()}


def test_points_are_sent_in_batches_of_bounded_size_with_the_token(influx: FakeInflux) -> None:
    with InfluxWriter(address_of(influx)) as writer:
        assert writer.write(iter(LINES)) == 95
    assert [body.count(b"\n") + 1 for body in influx.bodies] == [10] * 9 + [5]
    assert held(influx) == set(LINES)
    assert influx.authorizations == {"Token secret"}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507, 524])
def test_every_third_request_failing_in_the_middle_loses_nothing(influx: FakeInflux, status: int) -> None:
    influx.answers = lambda number: (204 if number % 3 else status, {})
    tries: list[StoreError | None] = []
    with InfluxWriter(address_of(influx), on_try=tries.append) as writer:
        assert writer.write(LINES) == 95
    assert held(influx) == set(LINES)
    failed = [error for error in tries if error is not None]
    assert len(tries) == len(influx.bodies) == 10 + len(failed)
    assert failed
    assert all(f"HTTP {status}" in error.message for error in failed)


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (308, "address that it sends to"),
        (401, "check the token"),
        (403, "token"),
        (404, "make the bucket"),
        (400, "nobody else"),
    ],
)
def test_what_cannot_succeed_is_said_at_once_without_the_token(influx: FakeInflux, status: int, fix: str) -> None:
    influx.answers = lambda number: (status, {})
    with InfluxWriter(address_of(influx)) as writer, pytest.raises(StoreError, match=f"HTTP {status}") as caught:
        writer.write(LINES)
    assert len(influx.bodies) == 1
    assert f"bucket 'b' of InfluxDB at {influx.url}: as told, for …" in caught.value.message
    assert fix in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_batch_that_is_too_large_is_halved(influx: FakeInflux) -> None:
    influx.answers = lambda number: (204 if influx_lines(influx, number) <= 3 else 413, {})
    with InfluxWriter(address_of(influx)) as writer:
        assert writer.write(LINES[:20]) == 20
    assert held(influx) == set(LINES[:20])


def influx_lines(influx: FakeInflux, number: int) -> int:
    # The first of a batch are refused until it has been halved twice: 10, 5 and then 2 or 3 lines.
    sizes = [10, 5, 2, 3, 5, 2, 3]
    return sizes[number % len(sizes)]


def test_a_point_that_is_too_large_alone_is_refused(influx: FakeInflux) -> None:
    influx.answers = lambda number: (413, {})
    with InfluxWriter(address_of(influx)) as writer, pytest.raises(TooLargeError, match="HTTP 413"):
        writer.write(LINES[:10])
    assert len(influx.bodies) == 4


def test_the_wait_that_a_server_asks_for_is_bounded(influx: FakeInflux) -> None:
    influx.answers = lambda number: (204, {}) if number else (429, {"Retry-After": "3600"})
    with InfluxWriter(address_of(influx)) as writer:
        assert writer.write(LINES[:1]) == 1


@pytest.mark.parametrize(("status", "settles"), [(503, False), (429, False), (500, True), (504, True), (524, True)])
def test_what_follows_a_try_that_may_still_be_at_work_waits(influx: FakeInflux, status: int, settles: bool) -> None:
    stop = threading.Event()
    waits: list[float | None] = []
    usual = stop.wait

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        return usual(min(timeout or 0, 0.01))

    stop.wait = wait  # type: ignore[method-assign]
    influx.answers = lambda number: (204 if number else status, {})
    with InfluxWriter(replace(address_of(influx), settle_s=1234), stop=stop) as writer:
        assert writer.write(LINES[:15]) == 15
    assert waits.count(1234) == settles


def test_a_stop_ends_a_long_wait(influx: FakeInflux) -> None:
    influx.answers = lambda number: (503, {"Retry-After": "3600"})
    stop, failed = threading.Event(), threading.Event()
    patient = replace(address_of(influx), max_wait_s=3600, settle_s=0.01)
    ended: list[type[BaseException]] = []

    def write() -> None:
        with InfluxWriter(patient, stop=stop, on_try=lambda error: failed.set()) as writer:
            try:
                writer.write(LINES)
            except StoppedError as error:
                ended.append(type(error))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert failed.wait(timeout=10)
    stop.set()
    thread.join(timeout=10)
    assert ended == [StoppedError]


def test_a_server_that_is_not_there_is_tried_until_it_is(influx: FakeInflux) -> None:
    reached = address_of(influx)
    errors: list[str] = []
    ended: list[type[BaseException]] = []
    started = threading.Event()

    def note(error: StoreError | None) -> None:
        if error is not None:
            errors.append(error.message)
            started.set()

    nobody = replace(reached, url="http://127.0.0.1:1")
    stop = threading.Event()
    with InfluxWriter(nobody, stop=stop, on_try=note) as writer:

        def write() -> None:
            try:
                writer.write(LINES)
            except StoppedError as error:
                ended.append(type(error))

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        assert started.wait(timeout=10)
        deadline = time.monotonic() + 10
        while len(errors) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.set()
        thread.join(timeout=10)
    assert ended == [StoppedError]
    assert len(errors) >= 3
    assert errors[0].startswith("cannot write to bucket 'b' of InfluxDB at http://127.0.0.1:1: ")
    assert "Connection refused" in errors[0]
    assert "0x" not in errors[0]
