"""Long-range jobs as `bench api` needs them: one timed from the request to its last chunk, or some beside others."""

import http.client
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter

from forecasting.bench.api_systems import BenchService, load, once
from forecasting.bench.http_load import Plan, Result
from forecasting.bench.processes import PeerError

STEPS = 36_500
# Jobs asked for beside the short forecasts: so many a second, for so long, of so many steps.
ASK_RATE, ASK_S, ASK_STEPS = 10.0, 4.0, 200
_TIMEOUT_S = 180.0


def long_forecasts(service: BenchService, rounds: Iterable[int]) -> Iterator[tuple[float, float]]:
    """Yield the milliseconds to the first chunk and the seconds to the end of a job a round.

    Raises:
        PeerError: a job was not done.
    """
    # The first job of a process reads the history.
    run_job(service, 1)
    for _ in rounds:
        yield run_job(service, STEPS)


def run_job(service: BenchService, steps: int) -> tuple[float, float]:
    """Ask for a job and read its stream; return milliseconds to the first chunk and seconds to the end.

    Raises:
        PeerError: it was not done.
    """
    begin_s = perf_counter()
    status, body = once(service.port, service.ask(steps))
    if status != http.HTTPStatus.ACCEPTED:
        raise PeerError(f"a job was answered with {status}")
    head, _, _ = service.stream(json.loads(body)["id"]).partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=_TIMEOUT_S)
    first_s, done, ended = 0.0, 0, {}
    try:
        connection.request("GET", line.split(" ")[1], headers=dict(header.split(": ", 1) for header in headers))
        with connection.getresponse() as answer:
            for text in answer:
                if not text.strip():
                    continue
                event = json.loads(text)
                if event["event"] == "chunk":
                    first_s = first_s or perf_counter() - begin_s
                    done += event["steps"]
                else:
                    ended = event
    finally:
        connection.close()
    if ended.get("status") != "done" or done != steps:
        raise PeerError(f"a job of {steps} steps ended after {done} as {ended.get('status')}")
    return 1000 * first_s, perf_counter() - begin_s


@contextmanager
def beside_jobs(service: BenchService) -> Iterator[Callable[[], Result]]:
    """Keep a long job running, and jobs being asked for; what is yielded returns how those were answered.

    Raises:
        PeerError: a job failed.
    """
    over = threading.Event()
    failures: list[PeerError] = []
    answers: list[Result] = []

    def keep_running() -> None:
        while not over.is_set():
            try:
                run_job(service, STEPS)
            except PeerError as error:
                failures.append(error)
                return

    def keep_asking() -> None:
        try:
            answers.append(load(Plan(service.port, (service.ask(ASK_STEPS),), ASK_S, 16, ASK_RATE)))
        except PeerError as error:
            failures.append(error)

    threads = [threading.Thread(target=target) for target in (keep_running, keep_asking)]
    for thread in threads:
        thread.start()

    def asked() -> Result:
        if failures:
            raise failures[0]
        return answers[0]

    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()
