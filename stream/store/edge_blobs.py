"""The edges of one step as a compact blob: sorted pairs of node ids, delta-coded by column, compressed where it pays.

A blob is a header (`_HEADER`) and the columns `src`, `dst` and `events`, each in the fewest bytes that hold its
largest number in this step, none at all where all are zero:

- src: the difference to the src before; the first stands in the header,
- dst: the difference to the dst before where src is the same, else dst itself,
- events: the count less one.

The bytes of wider numbers are grouped by significance, which compresses better.
"""

import struct
from collections.abc import Sequence

import numpy as np
import zstandard

from stream.events import IntArray
from stream.store.records import DST_MASK, PAIR_BITS

_HEADER = struct.Struct("<BHII")  # compressed, widths, edges, first src
_PLAIN, _COMPRESSED = 0, 1
# Below this a frame of its own costs more than it saves.
_COMPRESS_FROM_BYTES = 256
_WIDTHS = (0, 1, 2, 4, 8)
_LIMITS = np.array([0, 2**8 - 1, 2**16 - 1, 2**32 - 1], dtype=np.int64)
_COLUMNS = 3


class EdgeBlobs:
    """Encodes and decodes; for one thread at a time.

    Args:
        level: of zstandard; 0 compresses nothing.
    """

    def __init__(self, level: int = 3) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level) if level else None
        self._decompressor = zstandard.ZstdDecompressor()

    def encode(self, pairs: IntArray, events: IntArray, starts: IntArray) -> list[bytes]:
        """Return one blob a step.

        Args:
            pairs: [n] ascending and distinct within each step.
            events: [n] at least 1.
            starts: [s] index of the first edge of each step, ascending from 0; no step is empty.
        """
        if not len(starts):
            return []
        src, dst = pairs >> PAIR_BITS, pairs & DST_MASK
        src_delta, dst_delta = np.zeros_like(src), dst.copy()
        src_delta[1:] = src[1:] - src[:-1]
        src_delta[starts] = 0
        same = src_delta == 0
        same[starts] = False
        dst_delta[1:] -= np.where(same[1:], dst[:-1], 0)
        columns = [_Column(values, starts) for values in (src_delta, dst_delta, events - 1)]
        blobs = []
        ends = [*starts[1:].tolist(), len(pairs)]
        for begin, end, first_src, *codes in zip(
            starts.tolist(), ends, src[starts].tolist(), *(column.codes for column in columns), strict=True
        ):
            body = b"".join(column.bytes(code, begin, end) for column, code in zip(columns, codes, strict=True) if code)
            kind = _PLAIN
            if self._compressor is not None and len(body) >= _COMPRESS_FROM_BYTES:
                compressed = self._compressor.compress(body)
                if len(compressed) < len(body):
                    kind, body = _COMPRESSED, compressed
            widths = codes[0] | codes[1] << 4 | codes[2] << 8
            blobs.append(_HEADER.pack(kind, widths, end - begin, first_src) + body)
        return blobs

    def decode(self, blobs: Sequence[bytes]) -> tuple[IntArray, IntArray, IntArray]:
        """Return the pairs [n] and events [n] of blobs one after the other, and how many edges each has [s].

        Raises:
            ValueError: a blob is damaged.
        """
        if not blobs:
            none = np.zeros(0, dtype=np.int64)
            return none, none, none
        headers, columns = zip(*map(self._columns, blobs), strict=True)
        counts, first_src = np.array(headers, dtype=np.int64).T
        src_delta, dst_delta, extra = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        starts = np.cumsum(counts) - counts
        # A running sum that starts anew with every blob, and one that also does with every src.
        src = np.cumsum(src_delta)
        src += np.repeat(first_src - src[starts] + src_delta[starts], counts)
        is_new = src_delta != 0
        is_new[starts] = True
        new = np.flatnonzero(is_new)
        dst = np.cumsum(dst_delta)
        dst -= np.repeat(dst[new] - dst_delta[new], np.diff(new, append=len(dst)))
        return src << PAIR_BITS | dst, extra + 1, counts

    def _columns(self, blob: bytes) -> tuple[tuple[int, int], list[IntArray]]:
        """Return how many edges a blob has and its first src, and its three columns."""
        try:
            kind, widths, n, first_src = _HEADER.unpack_from(blob)
            body: bytes = blob[_HEADER.size :]
            if kind == _COMPRESSED:
                body = self._decompressor.decompress(body, max_output_size=_COLUMNS * 8 * n)
            elif kind != _PLAIN:
                raise ValueError(f"unknown kind {kind}")
            columns, at = [], 0
            for number in range(_COLUMNS):
                width = _WIDTHS[widths >> 4 * number & 15]
                columns.append(_read(body[at : at + width * n], width, n))
                at += width * n
            if not n or at != len(body):
                raise ValueError("wrong length")
        except (struct.error, zstandard.ZstdError, IndexError, ValueError) as error:
            raise ValueError(f"the edges of a step are damaged: {error}") from error
        return (n, first_src), columns


class _Column:
    """One column of all steps, and for each step the code of its width."""

    def __init__(self, values: IntArray, starts: IntArray) -> None:
        if values.min() < 0:
            raise ValueError("edges are not in order, or an event count is below 1")
        self._values = values
        self._cast: dict[int, bytes] = {}
        self.codes: list[int] = np.searchsorted(_LIMITS, np.maximum.reduceat(values, starts)).tolist()

    def bytes(self, code: int, begin: int, end: int) -> bytes:
        width = _WIDTHS[code]
        if width not in self._cast:
            # Numbers that are too large are cut, but belong to steps with wider columns.
            self._cast[width] = self._values.astype(f"<u{width}").tobytes()
        plain = self._cast[width][begin * width : end * width]
        return plain if width == 1 else np.frombuffer(plain, np.uint8).reshape(-1, width).T.tobytes()


def _read(body: bytes, width: int, n: int) -> IntArray:
    if not width:
        return np.zeros(n, dtype=np.int64)
    if width == 1:
        return np.frombuffer(body, np.uint8).astype(np.int64)
    grouped = np.frombuffer(body, np.uint8).reshape(width, n)
    return np.frombuffer(grouped.T.tobytes(), f"<u{width}").astype(np.int64)
