"""The chunks of a job as they are kept: server-sent events, or lines of JSON for programs."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from forecasting.api import results
from forecasting.api.bodies import encode, series
from forecasting.jobs import Job, Jobs
from models.contract import ForecastChunk

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
MEDIA_TYPES = (SSE, NDJSON)
POLL_S = 0.05
HEARTBEAT_S = 10.0


async def events(jobs: Jobs, job_id: str, after_step: int, media_type: str) -> AsyncIterator[bytes]:
    """Yield an event a chunk, from the step behind `after_step` on, and one that says how the job ended.

    Args:
        jobs: where the chunks are.
        job_id: which job.
        after_step: steps that the reader has already.
        media_type: how an event is written.
    """
    write = _sse if media_type == SSE else _line
    said_at = time.monotonic()
    while True:
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
        if job.status.is_final:
            end = {"id": job.id, "status": job.status, "steps_done": job.steps_done, "problem": job.problem}
            yield write("end", after_step, end)
            return
        if time.monotonic() - said_at > HEARTBEAT_S:
            yield b": still here\n\n" if media_type == SSE else b"\n"
            said_at = time.monotonic()
        await asyncio.sleep(POLL_S)


def _document(job: Job, chunk: ForecastChunk) -> dict[str, Any]:
    outputs = series(chunk, **results.place(job), metrics=job.request.metrics, levels=job.request.quantiles)
    return {"graph": job.graph, "first_step": chunk.first_step, "steps": len(chunk), "outputs": outputs}


def _sse(kind: str, last_step: int, body: dict[str, Any]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (last_step, kind.encode(), encode(body))


def _line(kind: str, last_step: int, body: dict[str, Any]) -> bytes:
    return encode({"event": kind, "last_step": last_step, **body}) + b"\n"
