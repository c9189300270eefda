"""Answers as zstd or gzip, where the client reads that and it is worth it."""

import gzip
import zlib
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Any

import zstandard

from forecasting.api.accepting import weighted

# Below, the headers are most of the answer.
MIN_BYTES = 1024
_ZSTD_LEVEL = 1
_GZIP_LEVEL = 4
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Coding(StrEnum):
    """Content codings, the better first: zstd takes a fraction of gzip's time for fewer bytes."""

    ZSTD = "zstd"
    GZIP = "gzip"


# Clients send the same few headers again and again.
@lru_cache(maxsize=64)
def accepted_coding(header: str | None) -> Coding | None:
    """Return the coding that an `Accept-Encoding` prefers of ours; None for an answer as it is."""
    weights = dict(weighted(header or ""))
    best, best_weight = None, 0.0
    for coding in Coding:
        weight = weights.get(coding, weights.get("*", 0.0))
        if weight > best_weight:
            best, best_weight = coding, weight
    # What is wanted as it is more than coded is sent as it is.
    return best if best_weight >= weights.get("identity", 0.0) else None


def compressed(body: bytes, coding: Coding) -> bytes:
    """Return a body in a coding; equal bodies give equal bytes."""
    if coding is Coding.ZSTD:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)


def compressing(pieces: Iterator[bytes], coding: Coding) -> Iterator[bytes]:
    """Yield a long body in a coding, piece by piece."""
    encoder: Any = (
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        if coding is Coding.ZSTD
        else zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    )
    for piece in pieces:
        if coded := encoder.compress(piece):
            yield coded
    yield encoder.flush()
