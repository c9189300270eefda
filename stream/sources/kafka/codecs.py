"""The compressions of Kafka's record batches, from libraries that are there anyway."""

import zlib
from collections.abc import Callable

from stream.sources.kafka.client import UnreadableBatchError

GZIP_WINDOW = 31  # zlib's word for a gzip header around the largest window
# Java's snappy library frames its blocks: a magic, two versions, then blocks that begin with their length.
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


def decompress(codec: int, data: bytes) -> bytes:
    """Return the records of a batch.

    Args:
        codec: the lowest three bits of the batch's attributes.
        data: what follows the batch's header.

    Raises:
        UnreadableBatchError: the codec is unknown, or the data are not what it makes.
    """
    if codec not in _DECOMPRESS:
        raise UnreadableBatchError(f"an unknown compression (codec {codec})")
    name, function = _DECOMPRESS[codec]
    try:
        return function(data)
    except (OSError, ValueError, zlib.error) as error:
        raise UnreadableBatchError(f"broken {name} data: {error}") from None


def _gzip(data: bytes) -> bytes:
    return zlib.decompress(data, wbits=GZIP_WINDOW)


def _stream(codec: str) -> Callable[[bytes], bytes]:
    def read(data: bytes) -> bytes:
        import pyarrow as pa  # noqa: PLC0415 - slow to import, needed where batches are compressed

        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            return bytes(stream.read())

    return read


def _snappy(data: bytes) -> bytes:
    if not data.startswith(_XERIAL):
        return _snappy_block(data)
    blocks, at = [], _XERIAL_HEADER_BYTES
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        at += 4
        if at + size > len(data):
            raise ValueError("a block is cut off")
        blocks.append(_snappy_block(data[at : at + size]))
        at += size
    return b"".join(blocks)


def _snappy_block(data: bytes) -> bytes:
    import pyarrow as pa  # noqa: PLC0415

    size = shift = 0
    for byte in data[:5]:  # the length of what was compressed stands before it, seven bits a byte
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return bytes(pa.decompress(data, decompressed_size=size, codec="snappy", asbytes=True))


_DECOMPRESS: dict[int, tuple[str, Callable[[bytes], bytes]]] = {
    1: ("gzip", _gzip),
    2: ("snappy", _snappy),
    3: ("lz4", _stream("lz4")),
    4: ("zstd", _stream("zstd")),
}
