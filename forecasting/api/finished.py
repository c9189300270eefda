"""What caches may do with a result that will not change: keep it for a while, each for its own caller or for all."""

import re

from fastapi import Request

from forecasting.keys import ANYONE, Key
from forecasting.service_file import now_us

# A result is removed some time after it was finished; a copy should not outlive it by much.
MAX_AGE_S = 3600
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def finished_headers(caller: Key, tag: str, vary: str, expires_us: int | None) -> dict[str, str]:
    """Return the headers of a finished result.

    Behind keys only the caller's own cache may keep it; a service without keys shows it to anyone, so a shared cache
    may keep it too, such as that of a content delivery network.

    Args:
        caller: who asks.
        tag: what tells this result in this form from all others.
        vary: the request headers that it depends on.
        expires_us: when it is removed here, UTC microseconds; None where that is not known.
    """
    left_s = MAX_AGE_S if expires_us is None else max(0, (expires_us - now_us()) // 1_000_000)
    scope = "public" if caller is ANYONE else "private"
    return {
        "Cache-Control": f"{scope}, max-age={min(MAX_AGE_S, left_s)}, immutable",
        "ETag": f'"{tag}"',
        "Vary": vary,
    }


def is_known(request: Request, tag: str) -> bool:
    """Tell whether `If-None-Match` names a result, so that a 304 is the answer."""
    header = request.headers.get("if-none-match", "").strip()
    return header == "*" or tag in _TAG.findall(header)
