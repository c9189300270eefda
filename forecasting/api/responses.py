"""Answers with an entity tag, compressed where the client wants that; one who has the same bytes already gets a 304."""

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response

from forecasting.api.cache import Answer, AnswerCache
from forecasting.api.compression import MIN_BYTES, Coding, accepted_coding, compressed

# May be kept by the client, must be asked for again: a new snapshot can come at any time.
CACHE_CONTROL = "private, no-cache"
VARY = "Accept-Encoding, Authorization, X-API-Key"


async def tagged(
    asked: Headers,
    answer: Answer,
    headers: Mapping[str, str] | None = None,
    *,
    kept: tuple[AnswerCache, str] | None = None,
) -> Response:
    """Return an answer, or 304 where `If-None-Match` names it.

    Args:
        asked: headers of the request.
        answer: with what.
        headers: further headers.
        kept: where compressed bytes are kept, and the graph that the answer is about; None for an answer that will
            hardly be asked for again.
    """
    coding = accepted_coding(asked.get("accept-encoding")) if len(answer.body) >= MIN_BYTES else None
    etag = answer.etag if coding is None else f'{answer.etag[:-1]}-{coding}"'
    sent = {"ETag": etag, "Cache-Control": CACHE_CONTROL, "Vary": VARY, **(headers or {})}
    if _matches(asked.get("if-none-match", ""), answer.etag):
        return Response(status_code=304, headers=sent)
    if coding is None:
        return Response(answer.body, headers=sent, media_type=answer.media_type)
    sent["Content-Encoding"] = coding
    return Response(await _compressed(answer, coding, kept), headers=sent, media_type=answer.media_type)


async def _compressed(answer: Answer, coding: Coding, kept: tuple[AnswerCache, str] | None) -> bytes:
    if kept is None:
        return await asyncio.to_thread(compressed, answer.body, coding)
    cache, graph = kept
    key = graph, answer.etag, coding
    found = cache.get(key)
    if found is None:
        found = Answer(await asyncio.to_thread(compressed, answer.body, coding), answer.etag, answer.media_type)
        cache.put(key, found)
    return found.body


def _matches(header: str, etag: str) -> bool:
    """Tell whether a header names an entity tag, of whatever coding."""
    if header.strip() == "*":
        return True
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or any(f'{etag[:-1]}-{coding}"' in tags for coding in Coding)
