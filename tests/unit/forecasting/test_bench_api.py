"""The load of `bench api`: latencies count from when a request was due, and every kind of answer is read to its end."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from forecasting.bench import api
from forecasting.bench.http_load import Plan, Result, get, percentile, post, run
from forecasting.bench.processes import ROOT

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def answering(answer: Callable[[int], bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port of a server that gives request `i` `answer(i)`, one at a time, and what it was sent."""
    seen: list[bytes] = []
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with connection:
            while request := connection.recv(65536):
                with lock:
                    seen.append(request)
                    told = answer(len(seen) - 1)
                for part in (told[:20], told[20:]):
                    connection.sendall(part)
                if not told:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1], seen
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def test_a_stall_costs_every_request_that_came_due_meanwhile() -> None:
    def stall(number: int) -> bytes:
        time.sleep(0.5 if number == 10 else 0)
        return OK

    with answering(stall) as (port, seen):
        found = run(Plan(port, (get("/a"),), 1.0, 2, 100.0))
    assert (len(seen), found.failed, found.statuses) == (100, 0, {"200": 100})
    # Half a second at a hundred a second: a load that waits for answers would count two.
    assert sum(latency > 100 for latency in found.latencies_ms) >= 30
    assert found.seconds >= 0.9


def test_answers_with_a_length_in_chunks_and_refusals_are_told_apart() -> None:
    answers = (OK, CHUNKED, REFUSED)
    with answering(lambda number: answers[number % 3]) as (port, seen):
        found = run(Plan(port, (get("/a", X_Key="k"), post("/b", {"c": 1})), 0.5, 1, 60.0))
    assert found.statuses == {"200": 20, "503": 10}
    assert len(found.latencies_ms) == 20
    assert seen[0] == b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Key: k\r\n\r\n"
    assert seen[1].endswith(b'Content-Length: 8\r\n\r\n{"c": 1}')


def test_a_connection_that_breaks_is_a_request_that_failed_and_the_next_goes_on() -> None:
    with answering(lambda number: b"" if number == 3 else OK) as (port, _):
        found = run(Plan(port, (get("/a"),), 0.3, 1, 50.0))
    assert (found.failed, found.statuses) == (1, {"200": 14})


def test_without_a_rate_the_next_is_sent_when_a_connection_is_free() -> None:
    plan = asdict(Plan(0, (get("/a"),), 0.5, 3))
    with answering(lambda _: OK) as (port, seen):
        ran = subprocess.run(
            [sys.executable, "-m", "forecasting.bench.http_load"],
            input=json.dumps({**plan, "port": port}).encode(),
            capture_output=True,
            cwd=ROOT,
            check=True,
        )
    found = Result(**json.loads(ran.stdout))
    assert len(found.latencies_ms) == len(seen) > 3
    assert found.per_s == pytest.approx(len(seen) / found.seconds)


def test_percentiles_are_values_that_were_measured() -> None:
    assert [percentile(range(1, 101), percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert percentile([], 50) == float("inf")


def test_every_target_belongs_to_a_case_of_a_group() -> None:
    cases = {case for group, _ in api.GROUPS for case in group}
    assert set(api.TARGETS) <= cases
    assert {case for case, _ in api._FIGURES} <= cases


def test_no_group_is_started_where_no_case_is_chosen() -> None:
    report = api.measure(command="x", budget_s=0, only="no such case", say=lambda _: None)
    assert (report.rows, report.ratios) == ([], [])
