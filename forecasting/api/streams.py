"""Streams of events: server-sent events, or lines of JSON for programs; the chunks of a job as they are kept."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from forecasting.api import results
from forecasting.api.bodies import encode, paths_member, series
from forecasting.jobs import Job, Jobs
from infra.errors import StoreError
from models.contract import PathChunk

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
MEDIA_TYPES = (SSE, NDJSON)
# What says that a stream is alive. No blank line behind the comment: some readers would take it for an event's end.
HEARTBEATS = {SSE: b": still here\n", NDJSON: b"\n"}
POLL_S = 0.05
# The first chunk is looked for more often, a reader waits for it; as long as it can be expected any moment.
FIRST_POLL_S, FIRST_S = 0.01, 1.0
_log = logging.getLogger(__name__)


def written(media_type: str, kind: str, event_id: str | None, body: bytes) -> bytes:
    """Return an event with its id as it is sent; `body` is a JSON object that is not empty, in one line."""
    if media_type == SSE:
        told = b"" if event_id is None else b"id: %s\n" % event_id.encode()
        return b"%sevent: %s\ndata: %s\n\n" % (told, kind.encode(), body)
    return encode({"event": kind, "id": event_id})[:-1] + b"," + body[1:] + b"\n"


async def events(
    jobs: Jobs,
    job_id: str,
    after_step: int,
    media_type: str,
    *,
    heartbeat_s: float,
    is_over: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """Yield an event a chunk, from the step behind `after_step` on, and one that says how the job ended.

    Where the job cannot be read any more, the events end without that one: who asks again is told why.

    Args:
        jobs: where the chunks are.
        job_id: which job.
        after_step: steps that the reader has already.
        media_type: how an event is written.
        heartbeat_s: something is sent this often.
        is_over: tells that the process ends, and the reader goes on with another one; or that the reader may not go on.
    """
    write = _sse if media_type == SSE else _line
    began_at = said_at = time.monotonic()
    has_chunk = False
    try:
        while not await is_over():
            # Read before the chunks: of a job that has ended, all of them are there.
            job = await asyncio.to_thread(jobs.get, job_id)
            if job is None:
                return
            if job.steps_done > after_step:
                iterator = jobs.chunks(job, after_step)
                while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
                    after_step = chunk.first_step + len(chunk)
                    yield write("chunk", after_step, await asyncio.to_thread(_document, job, chunk))
                    said_at = time.monotonic()
                    has_chunk = True
            if job.status.is_final:
                end = {"id": job.id, "status": job.status, "steps_done": job.steps_done, "problem": job.problem}
                yield write("end", after_step, end)
                return
            if time.monotonic() - said_at > heartbeat_s:
                yield HEARTBEATS[media_type]
                said_at = time.monotonic()
            is_soon = not has_chunk and time.monotonic() - began_at < FIRST_S
            await asyncio.sleep(FIRST_POLL_S if is_soon else max(POLL_S, jobs.look_s))
    except StoreError as error:
        _log.warning("the stream of the forecast %s is cut short: %s", job_id, error.message)


def _document(job: Job, chunk: PathChunk) -> dict[str, Any]:
    metrics = job.request.metrics
    outputs = series(chunk.forecast, **results.place(job), metrics=metrics, levels=job.request.quantiles, digits=None)
    head = {"graph": job.graph, "first_step": chunk.first_step, "steps": len(chunk), "outputs": outputs}
    return head | paths_member(chunk, metrics)


def _sse(kind: str, last_step: int, body: dict[str, Any]) -> bytes:
    return written(SSE, kind, str(last_step), encode(body))


def _line(kind: str, last_step: int, body: dict[str, Any]) -> bytes:
    return encode({"event": kind, "last_step": last_step, **body}) + b"\n"
