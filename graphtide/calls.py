"""The requests of the service, each with how its answer is read: what both clients share."""

import json
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import pandas as pd
import pyarrow as pa
from httpx_sse import ServerSentEvent

from graphtide.errors import ApiError, JobFailedError
from graphtide.results import Chunk, Forecast, Graph, Job, News, event_records, forecast_of, series_frame

Answer = TypeVar("Answer")
Moment = str | pd.Timestamp
RETRIED = frozenset({429, 503})
ARROW = "application/vnd.apache.arrow.stream"
# Tries to go on with a stream, without an event between them, before giving up; the wait doubles from the first.
STREAM_TRIES = 6
STREAM_WAIT_S = 0.25
# What a header carries as it is: neither letters beyond ASCII nor white space at its ends.
_VISIBLE_ASCII = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request.

    Attributes:
        method, path, params, headers, content: of HTTP.
        read: makes the value from an answer that succeeded.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


def key_headers(key: str | None) -> dict[str, str]:
    """Return the headers that tell a service whose requests these are.

    Raises:
        ValueError: the key cannot be sent. The message does not show it: without a stray line end it may be a secret.
    """
    if key is None:
        return {}
    if _VISIBLE_ASCII.fullmatch(key) is None:
        raise ValueError("key is no API key: give it as `graphtide keys create` printed it, or None for no key")
    return {"Authorization": f"Bearer {key}"}


def graphs() -> Call[list[Graph]]:
    """List the graphs."""
    return Call("GET", "/v1/graphs", lambda answer: [Graph.of(one) for one in answer.json()["graphs"]])


def graph(name: str) -> Call[Graph]:
    """Ask for one graph."""
    return Call("GET", _path(name), lambda answer: Graph.of(answer.json()))


def snapshots(
    name: str,
    *,
    start: Moment | None,
    end: Moment | None,
    metrics: Sequence[str] | None,
    cursor: str | None,
) -> Call[dict[str, Any]]:
    """Ask for one page of snapshots."""
    moments = {key: _iso(value) for key, value in (("start", start), ("end", end)) if value is not None}
    params = moments | _names(metrics, None) | ({"cursor": cursor} if cursor else {})
    return Call("GET", f"{_path(name)}/snapshots", _document, params)


def forecast(
    name: str,
    *,
    horizon: int,
    metrics: Sequence[str] | None,
    quantiles: Sequence[float] | None,
    paths: int | None,
    seed: int | None,
) -> Call[Forecast]:
    """Ask for a short forecast."""
    drawn = {key: str(value) for key, value in (("paths", paths), ("seed", seed)) if value is not None}
    params = {"horizon": str(horizon)} | _names(metrics, quantiles) | drawn
    return Call("GET", f"{_path(name)}/forecast", lambda answer: forecast_of(answer.json()), params)


def ask(
    name: str,
    *,
    horizon: int,
    metrics: Sequence[str] | None,
    quantiles: Sequence[float] | None,
    seed: int | None,
    paths: int | None,
    idempotency_key: str | None,
) -> Call[Job]:
    """Ask for a long forecast; the key makes a repetition harmless.

    Raises:
        ValueError: the key cannot be sent.
    """
    levels = None if quantiles is None else [float(level) for level in _levels(quantiles)]
    names = None if metrics is None else each(metrics)
    wanted = {"horizon": horizon, "metrics": names, "quantiles": levels, "seed": seed, "paths": paths}
    body = {
        key: list(value) if isinstance(value, Sequence) else value for key, value in wanted.items() if value is not None
    }
    headers = {"Idempotency-Key": _one_time_key(idempotency_key), "Content-Type": "application/json"}
    return Call(
        "POST",
        f"{_path(name)}/forecasts",
        lambda answer: Job.of(answer.json()),
        headers=headers,
        content=json.dumps(body, default=_plain).encode(),
    )


def job(of: Job | str) -> Call[Job]:
    """Ask how far a job is."""
    return Call("GET", job_path(of), lambda answer: Job.of(answer.json()))


def cancel(of: Job | str) -> Call[Job]:
    """Cancel a job."""
    return Call("DELETE", job_path(of), lambda answer: Job.of(answer.json()))


def result(of: Job) -> Call[Forecast]:
    """Ask for the result of a job that is done."""

    def read(answer: httpx.Response) -> Forecast:
        with pa.ipc.open_stream(answer.content) as reader:
            table = reader.read_all()
        metadata = table.schema.metadata or {}
        provenance = json.loads(metadata.get(b"graphtide.provenance", b"null"))
        return Forecast(of.graph, table.to_pandas(), provenance)

    return Call("GET", f"{job_path(of.id)}/result", read, headers={"Accept": ARROW})


def send(
    name: str,
    events: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    batch: int,
    idempotency_key: str | None,
) -> Iterator[tuple[int, Call[Mapping[str, Any]]]]:
    """Yield the requests that send events, each with how many records come before it.

    Raises:
        ValueError: a batch would hold no event, or the key cannot be sent.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, and has to be at least 1")
    records = event_records(events)
    key = _one_time_key(idempotency_key)
    for begin in range(0, len(records), batch):
        lines = b"\n".join(json.dumps(record, default=str).encode() for record in records[begin : begin + batch])
        headers = {"Idempotency-Key": f"{key}-{begin}", "Content-Type": "application/x-ndjson"}
        yield begin, Call("POST", f"{_path(name)}/events", _document, headers=headers, content=lines)


def all_rejected(error: ApiError) -> Mapping[str, Any]:
    """Return what a refusal says of a batch of which no record is an event, as the answer would to any other batch.

    Raises:
        ApiError: it was refused for another reason.
    """
    document = error.document
    if error.status != 422 or error.kind != "invalid-body" or "rejected" not in document:
        raise error
    return {"accepted": 0, "rejected": document["rejected"], "errors": document.get("errors", ())}


def live_params(
    horizon: int | None, metrics: Sequence[str] | None, quantiles: Sequence[float] | None
) -> dict[str, str]:
    """Return the query of a graph's stream."""
    return ({} if horizon is None else {"horizon": str(horizon)}) | _names(metrics, quantiles)


def live_path(name: str) -> str:
    """Return where the stream of a graph is."""
    return f"{_path(name)}/live"


def job_path(of: Job | str) -> str:
    """Return where a job is; its id will do."""
    return f"/v1/forecasts/{quote(of.id if isinstance(of, Job) else of, safe='')}"


def read_chunk(event: ServerSentEvent) -> Chunk | None:
    """Return the chunk of an event; None where the job is done.

    Raises:
        JobFailedError: it ended otherwise.
    """
    document = event.json()
    if event.event == "end":
        if document["status"] != "done":
            raise JobFailedError(document["id"], document["status"], document["problem"])
        return None
    return Chunk(document["first_step"], document["steps"], series_frame(document["outputs"], document.get("paths")))


def read_news(event: ServerSentEvent) -> News:
    """Return what an event of a graph's stream tells."""
    return News(event.event, event.id, event.json())


def each(metrics: Sequence[str]) -> Sequence[str]:
    """Return metrics one by one: a single text is a sequence of its characters, and nobody means those."""
    return [metrics] if isinstance(metrics, str) else metrics


def refuse(answer: httpx.Response) -> None:
    """Raise what an answer that is no success says; its body has been read.

    Raises:
        ApiError: it is none.
    """
    if answer.is_success:
        return
    try:
        document = answer.json()
    except ValueError:
        document = {}
    document = document if isinstance(document, dict) else {}
    kind = str(document.get("type", "")).rpartition(":")[2]
    detail = str(document.get("detail") or answer.reason_phrase or "the service refused the request")
    raise ApiError(answer.status_code, kind, detail, document, wait_s(answer))


def wait_s(answer: httpx.Response) -> float | None:
    """Return the seconds that `Retry-After` asks for; None where it does not."""
    try:
        seconds = float(answer.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _one_time_key(given: str | None) -> str:
    key = given or uuid.uuid4().hex
    if _VISIBLE_ASCII.fullmatch(key) is None:
        raise ValueError(f"idempotency_key is {key!r}, and has to be of visible ASCII characters")
    return key


def _path(name: str) -> str:
    return f"/v1/graphs/{quote(name, safe='')}"


def _names(metrics: Sequence[str] | None, quantiles: Sequence[float] | None) -> dict[str, str]:
    names = {} if metrics is None else {"metrics": ",".join(each(metrics))}
    return names | ({} if quantiles is None else {"quantiles": ",".join(_levels(quantiles))})


def _levels(quantiles: Sequence[float]) -> list[str]:
    # Short: what was computed as 0.30000000000000004 is meant as 0.3.
    return [f"{level:g}" for level in quantiles]


def _plain(value: object) -> Any:
    """Return a number or an array of numpy, or a column of pandas, as JSON has it.

    Raises:
        TypeError: it is none of them.
    """
    to_plain: Callable[[], Any] | None = getattr(value, "tolist", None)
    if to_plain is None:
        raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")
    return to_plain()


def _iso(moment: Moment) -> str:
    return moment if isinstance(moment, str) else moment.isoformat()


def _document(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    return found
