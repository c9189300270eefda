"""Which files were followed, as a position keeps them, so that none of them counts again under another name."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from infra.errors import InputError
from stream.sources.base import Position, ReadBefore
from stream.sources.compression import reading
from stream.sources.selection import LogFile

FINGERPRINT_BYTES = 4096
# Every commit writes about 90 bytes for each.
_EARLIER_FILES = 200


@dataclass(frozen=True, slots=True)
class Followed:
    """A file that was followed.

    Attributes:
        fingerprint: the SHA-256 of its beginning, in hex.
        fingerprint_bytes: how long that beginning is.
        byte: up to where the file was read.
    """

    fingerprint: str
    fingerprint_bytes: int
    byte: int


def fingerprint_of(beginning: bytes) -> str:
    """Return what tells a file by its beginning."""
    return hashlib.sha256(beginning).hexdigest()


def earlier_of(position: Position) -> list[Followed]:
    """Return the files that were followed before the one of a position, oldest first."""
    earlier = position.get("earlier")
    if not isinstance(earlier, str):
        return []
    return [Followed(*each) for each in msgspec.json.decode(earlier, type=list[tuple[str, int, int]])]


def followed_of(position: Position) -> list[Followed]:
    """Return all files that a position knows, oldest first; its own is the last."""
    fingerprint, length, byte = (position.get(key) for key in ("fingerprint", "fingerprint_bytes", "byte"))
    if not (isinstance(fingerprint, str) and isinstance(length, int) and isinstance(byte, int)) or length <= 0:
        return earlier_of(position)
    return [*earlier_of(position), Followed(fingerprint, length, byte)]


def earlier_to_position(earlier: Sequence[Followed]) -> Position:
    """Return earlier files, oldest first, as a part of a position.

    The last 200 are kept. An older one is forgotten: `check_not_followed` lets it pass.
    """
    if not earlier:
        return {}
    kept = [(each.fingerprint, each.fingerprint_bytes, each.byte) for each in earlier[-_EARLIER_FILES:]]
    return {"earlier": msgspec.json.encode(kept).decode()}


def check_not_followed(files: Iterable[LogFile], before: Iterable[ReadBefore], reading_: str) -> None:
    """Make sure that no plain file was followed, under whatever name.

    Args:
        files: the files.
        before: sources that were read.
        reading_: how these files are read; what was read in another way is other events.

    Raises:
        InputError: one was.
    """
    sources = [each for each in before if each.name.startswith("follow:") and _reading_of(each.name) == reading_]
    followed = [(each, at == 0) for source in sources for at, each in enumerate(reversed(followed_of(source.position)))]
    for file in files if followed else ():
        with reading(file.path) as opened:
            head = opened.read(FINGERPRINT_BYTES)
        for each, is_current in followed:
            length = each.fingerprint_bytes
            if length <= len(head) and fingerprint_of(head[:length]) == each.fingerprint:
                raise _counts_again(file, each.byte, is_current=is_current)


def _counts_again(file: LogFile, byte: int, *, is_current: bool) -> InputError:
    if is_current:
        go_on = "go on with --follow"
    else:
        go_on = "if lines stand behind that byte, put them into a file of their own and ingest that"
    return InputError(
        f"{file.path} was read before with --follow, up to byte {byte:,}, and that would count again",
        place=f"{file.path}, up to byte {byte:,}",
        fix=f"{go_on}, or ingest the file into a new store or under another --graph",
    )


def _reading_of(source: str) -> str:
    """Return how a followed file was read, as the name of its source says behind the path."""
    _, mark, reading_ = source.rpartition("#")
    return f"{mark}{reading_}" if mark and "=" in reading_ else ""
