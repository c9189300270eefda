"""Answers with an entity tag: a client that has the same bytes already gets a 304 without them."""

from collections.abc import Mapping

from fastapi import Request
from starlette.responses import Response

from forecasting.api.cache import Answer

# May be kept by the client, must be asked for again: a new snapshot can come at any time.
CACHE_CONTROL = "private, no-cache"


def tagged(request: Request, answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer, or 304 where `If-None-Match` names it."""
    sent = {"ETag": answer.etag, "Cache-Control": CACHE_CONTROL, "Vary": "Authorization, X-API-Key", **(headers or {})}
    if _matches(request.headers.get("if-none-match", ""), answer.etag):
        return Response(status_code=304, headers=sent)
    return Response(answer.body, headers=sent, media_type=answer.media_type)


def _matches(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in header.split(",")]
