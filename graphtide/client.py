"""The client that waits for its answers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx
import pandas as pd
from httpx_sse import EventSource, ServerSentEvent

from graphtide import calls
from graphtide.calls import RETRIED, STREAM_WAIT_S, Call, Moment
from graphtide.errors import ApiError, UnreachableError
from graphtide.patience import QUIET_S, Patience
from graphtide.progress import Bar
from graphtide.results import Chunk, Forecast, Graph, Job, News, Taken, snapshot_frame

Answer = TypeVar("Answer")


class Client:
    """A client of one forecast service; a context manager, for one thread at a time.

    Every method raises `ApiError` where the service refuses, and `UnreachableError` where it cannot be reached. An
    answer 429 or 503 is asked for once more after its `Retry-After`, a read whose connection broke after a moment.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        key: an API key, where it needs one.
        timeout_s: for a connection, and for each part of an answer; for those of a stream, which may be quiet, at
            least 30 s.
        max_wait_s: the longest `Retry-After` that is waited for.
        transport: in the place of the network.
        sleep, clock: in the place of those of the machine.

    Raises:
        ValueError: `key` cannot be an API key.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        max_wait_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        headers = calls.key_headers(key)
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._timeout_s = timeout_s
        self._max_wait_s = max_wait_s
        self._sleep = sleep
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def graphs(self) -> list[Graph]:
        """Return the graphs that the key may read."""
        return self._call(calls.graphs())

    def graph(self, name: str) -> Graph:
        """Return one graph."""
        return self._call(calls.graph(name))

    def snapshots(
        self,
        graph: str,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        metrics: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Return what was observed from `start` to before `end`, by step; all pages of it."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._call(calls.snapshots(graph, start=start, end=end, metrics=metrics, cursor=cursor))
            rows += page["rows"]
            cursor = page["next_cursor"]
            if cursor is None:
                return snapshot_frame(rows, calls.each(() if metrics is None else metrics))

    def forecast(
        self,
        graph: str,
        horizon: int = 24,
        *,
        metrics: Sequence[str] | None = None,
        quantiles: Sequence[float] | None = None,
        paths: int | None = None,
        seed: int | None = None,
    ) -> Forecast:
        """Return the next steps, answered at once, with `paths` sample paths beside the quantiles."""
        return self._call(
            calls.forecast(graph, horizon=horizon, metrics=metrics, quantiles=quantiles, paths=paths, seed=seed)
        )

    def long_forecast(
        self,
        graph: str,
        horizon: int,
        *,
        metrics: Sequence[str] | None = None,
        quantiles: Sequence[float] | None = None,
        seed: int | None = None,
        paths: int | None = None,
        progress: bool = False,
    ) -> Forecast:
        """Ask for a long-range forecast, wait for it, perhaps with a progress bar, and return it.

        Raises:
            JobFailedError: it failed or was cancelled.
        """
        job = self.ask(graph, horizon, metrics=metrics, quantiles=quantiles, seed=seed, paths=paths)
        self.wait(job, progress=progress)
        return self.result(job)

    def ask(
        self,
        graph: str,
        horizon: int,
        *,
        metrics: Sequence[str] | None = None,
        quantiles: Sequence[float] | None = None,
        seed: int | None = None,
        paths: int | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask for a long-range forecast, perhaps with sample paths; the same key gives the same job."""
        return self._call(
            calls.ask(
                graph,
                horizon=horizon,
                metrics=metrics,
                quantiles=quantiles,
                seed=seed,
                paths=paths,
                idempotency_key=idempotency_key,
            )
        )

    def job(self, job: Job | str) -> Job:
        """Return how far a job is; its id will do."""
        return self._call(calls.job(job))

    def cancel(self, job: Job | str) -> Job:
        """Cancel a job, and return how it stands now; its id will do."""
        return self._call(calls.cancel(job))

    def result(self, job: Job) -> Forecast:
        """Return the result of a job that is done."""
        return self._call(calls.result(job))

    def chunks(self, job: Job, *, after_step: int = 0) -> Iterator[Chunk]:
        """Yield the chunks of a job as they are computed, from the step behind `after_step` on.

        A stream that breaks is gone on with where it broke.

        Raises:
            JobFailedError: it failed or was cancelled.
        """
        for event in self._events(f"{calls.job_path(job.id)}/stream", {}, str(after_step)):
            chunk = calls.read_chunk(event)
            if chunk is None:
                return
            yield chunk

    def wait(self, job: Job, *, progress: bool = False) -> Job:
        """Wait for a job, perhaps with a progress bar on the terminal.

        Raises:
            JobFailedError: it failed or was cancelled.
        """
        with Bar(job, shown=progress) as bar:
            for chunk in self.chunks(job):
                bar.at(chunk.first_step + chunk.steps)
        return self.job(job.id)

    def live(
        self,
        graph: str,
        *,
        horizon: int | None = None,
        metrics: Sequence[str] | None = None,
        quantiles: Sequence[float] | None = None,
        last_id: str = "",
    ) -> Iterator[News]:
        """Yield snapshots as they close or are revised, and with `horizon` the forecasts that follow them, for ever.

        `last_id` goes on behind an event of before. A stream that breaks or ends is gone on with.
        """
        params = calls.live_params(horizon, metrics, quantiles)
        for event in self._events(calls.live_path(graph), params, last_id):
            if event.event != "end":
                yield calls.read_news(event)

    def send(
        self,
        graph: str,
        events: pd.DataFrame | Sequence[Mapping[str, Any]],
        *,
        batch: int = 5000,
        idempotency_key: str | None = None,
    ) -> Taken:
        """Send events, `batch` at a time: rows of a frame or objects with `src`, `dst`, `ts` and what else there is.

        Whole numbers stay whole numbers beside a gap of their column, which pandas makes one of floats; those from 2⁵³
        on only in one of dtype `Int64`.

        After an error the same call with the same key goes on: what was taken is not taken twice. That no record of
        a batch is an event is an error only where no record of all the others is one either.

        Raises:
            ValueError: `batch` is less than 1, or the key has other than visible ASCII characters.
        """
        taken = Taken()
        refused: ApiError | None = None
        for before, call in calls.send(graph, events, batch=batch, idempotency_key=idempotency_key):
            try:
                document: Mapping[str, Any] = self._call(call)
            except ApiError as error:
                document, refused = calls.all_rejected(error), refused or error
            taken = taken.plus(document, before)
        if refused is not None and not taken.accepted:
            raise refused
        return taken

    def _call(self, call: Call[Answer]) -> Answer:
        for is_last in (False, True):
            try:
                answer = self._http.request(
                    call.method, call.path, params=dict(call.params), headers=dict(call.headers), content=call.content
                )
            except httpx.TransportError as error:
                # A process that is killed takes the connection with it; another one answers a moment later.
                if call.method == "GET" and not is_last:
                    self._sleep(STREAM_WAIT_S)
                    continue
                raise UnreachableError(f"{self._http.base_url} cannot be reached: {error}") from error
            wait_s = calls.wait_s(answer)
            if is_last or answer.status_code not in RETRIED or wait_s is None or wait_s > self._max_wait_s:
                break
            self._sleep(wait_s)
        calls.refuse(answer)
        return call.read(answer)

    def _events(self, path: str, params: Mapping[str, str], last_id: str) -> Iterator[ServerSentEvent]:
        """Yield the events of a stream; whoever has had enough stops asking."""
        read_s = max(self._timeout_s, QUIET_S)
        timeout = httpx.Timeout(self._timeout_s, read=read_s)
        patience = Patience(path, timeout_s=read_s, max_wait_s=self._max_wait_s, clock=self._clock)
        while True:
            cause: Exception | None = None
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            try:
                with self._http.stream("GET", path, params=dict(params), headers=headers, timeout=timeout) as answer:
                    if not answer.is_success:
                        answer.read()
                        calls.refuse(answer)
                    patience.opened()
                    for event in EventSource(answer).iter_sse():
                        if event.data:
                            patience.told()
                            last_id = event.id or last_id
                            yield event
            except httpx.TransportError as error:
                cause = error
            except ApiError as error:
                if error.status not in RETRIED:
                    raise
                cause = error
            self._sleep(patience.wait_s(cause))
