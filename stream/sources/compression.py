"""Files as streams of plain bytes, whatever they are compressed with; told by their first bytes, not by their names."""

import gzip
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import zstandard

from infra.errors import InputError

# Called with the place in the packed file, in bytes.
OnRead = Callable[[int], None]

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_UNREAD = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"SQLite format 3\x00": "an SQLite database",
}
# A zstd block of a few bytes may hold 128 KiB: small pieces keep what one of them expands to small.
_ZSTD_PIECE_BYTES = 2048
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One log inside a file: the file itself, or a member of a zip archive.

    Attributes:
        label: as errors name it: the path, for a member of an archive `PATH!MEMBER`.
        name: the file name, without what says how it is packed.
        pieces: return the plain bytes in pieces of at most the size given; it raises InputError where the file is cut
            short or broken.
        is_plain: it is a file as it stands.
    """

    label: str
    name: str
    pieces: Callable[[int, OnRead], Iterator[bytes]]
    is_plain: bool = False


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file; what the system refuses becomes an InputError that names the path.

    Raises:
        InputError: the file is missing, is no regular file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file", fix="give a file or a folder")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"no such file: {path}", fix="check the path") from None
    except PermissionError:
        raise InputError(f"{path} must not be read", fix=f"give yourself the right to: chmod u+r {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def compression_of(head: bytes) -> str:
    """Return `gz`, `zst`, `zip` or "" for the first bytes of a file."""
    if head.startswith(_GZIP):
        return "gz"
    if head.startswith(_ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] >> 4 == 5):
        return "zst"
    return "zip" if head.startswith(_ZIP) else ""


def members(path: Path) -> list[Member]:
    """Return the logs that a file holds: one, or the members of a zip archive by name.

    Raises:
        InputError: the file cannot be read, or is packed in a way that is not read here.
    """
    with reading(path) as file:
        head = file.read(512)
    for magic, what in _UNREAD.items():
        if head.startswith(magic):
            raise InputError(f"{path} is {what}, which is not read", fix="unpack or convert it to text, gz, zst or zip")
    if head[257:262] == b"ustar":
        raise InputError(f"{path} is a tar archive, which is not read", fix="unpack it and give the folder")
    kind = compression_of(head)
    if kind == "zip":
        return _zip_members(path)
    inner = path.name
    if kind:
        inner = inner.removesuffix(f".{kind}")
    unpack = {"gz": _gunzip, "zst": _unzstd, "": _plain}[kind]
    return [Member(str(path), inner, partial(unpack, path), is_plain=not kind)]


class Text:
    """The text of a log from some byte on, and what went by of it.

    Args:
        path: the file.
        log: the log in it.
        begin_byte: where it begins, counted in the text of the log.

    Attributes:
        end_byte: up to where it was read.
    """

    def __init__(self, path: Path, log: Member, begin_byte: int = 0) -> None:
        self.begin_byte = begin_byte
        self.end_byte = begin_byte if log.is_plain else 0
        self._path = path
        self._log = log
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The SHA-256 of what a packed log holds up to `end_byte`, in hex."""
        return self._digest.hexdigest()

    def pieces(self, size: int, on_read: OnRead) -> Iterator[bytes]:
        """Return the text in pieces of at most `size` bytes; once.

        Raises:
            InputError: the file is cut short or broken.
        """
        if self._log.is_plain:
            for piece in _plain(self._path, size, on_read, begin=self.begin_byte):
                self.end_byte += len(piece)
                yield piece
            return
        for piece in self._log.pieces(size, on_read):
            known = max(0, self.begin_byte - self.end_byte)
            self._digest.update(piece)
            self.end_byte += len(piece)
            if known < len(piece):
                yield piece[known:]


@dataclass(slots=True)
class Beginning:
    """The beginning of a text.

    Attributes:
        digest: its SHA-256, in hex.
        last: its last byte.
        following: the two bytes behind it, or what there is of them.
    """

    digest: str
    last: bytes
    following: bytes


def beginnings(log: Member, sizes: Collection[int]) -> dict[int, Beginning]:
    """Return the beginnings of the text of a log by their sizes in bytes, above 0; those that it is long enough for.

    Raises:
        InputError: the file cannot be read.
    """
    digest, at, found = hashlib.sha256(), 0, dict[int, Beginning]()
    open_ended: list[Beginning] = []
    left = sorted(sizes)
    for piece in log.pieces(_BLOCK_BYTES, lambda _: None):
        for each in open_ended:
            each.following += piece[: 2 - len(each.following)]
        done = 0
        while left and left[0] <= at + len(piece):
            size = left.pop(0)
            end = size - at
            digest.update(piece[done:end])
            done = end
            found[size] = Beginning(digest.hexdigest(), piece[end - 1 : end], piece[end : end + 2])
            open_ended.append(found[size])
        open_ended = [each for each in open_ended if len(each.following) < 2]
        if not left and not open_ended:
            break
        digest.update(piece[done:])
        at += len(piece)
    return found


def _plain(path: Path, size: int, on_read: OnRead, *, begin: int = 0) -> Iterator[bytes]:
    with reading(path) as file:
        file.seek(begin)
        while piece := file.read(size):
            on_read(file.tell())
            yield piece


def _gunzip(path: Path, size: int, on_read: OnRead) -> Iterator[bytes]:
    with reading(path) as file, _whole(path), gzip.GzipFile(fileobj=file) as plain:
        while piece := plain.read(size):
            on_read(file.tell())
            yield piece


def _unzstd(path: Path, size: int, on_read: OnRead) -> Iterator[bytes]:
    with reading(path) as file, _whole(path):
        context = zstandard.ZstdDecompressor()
        frame = context.decompressobj()
        begun = False
        plain = bytearray()
        while piece := file.read(_ZSTD_PIECE_BYTES):
            while piece:
                begun = True
                plain += frame.decompress(piece)
                piece = b""
                if frame.eof:
                    piece = frame.unused_data
                    frame, begun = context.decompressobj(), False
            on_read(file.tell())
            while len(plain) >= size:
                yield bytes(plain[:size])
                del plain[:size]
        if begun:
            raise EOFError
        if plain:
            yield bytes(plain)


def _zip_members(path: Path) -> list[Member]:
    with reading(path) as file, _whole(path), zipfile.ZipFile(file) as archive:
        names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    if not names:
        raise InputError(f"{path} is an empty archive", fix="give an archive with logs")
    return [Member(f"{path}!{name}", name.rpartition("/")[2], partial(_unzip, path, name)) for name in names]


def _unzip(path: Path, name: str, size: int, on_read: OnRead) -> Iterator[bytes]:
    with reading(path) as file, _whole(path), zipfile.ZipFile(file) as archive, archive.open(name) as plain:
        while piece := plain.read(size):
            on_read(file.tell())
            yield piece


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what the decompressors raise into an InputError that says whether the file is cut short or broken."""
    fix = "fetch or write the file again"
    try:
        yield
    except EOFError:
        raise InputError(f"{path} is cut short: the compressed data ends early", fix=fix) from None
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise InputError(f"{path} is broken or cut short: {error}", fix=fix) from None
    except NotImplementedError as error:
        raise InputError(f"{path} is packed in a way that is not read: {error}", fix="pack it with deflate") from None
    except RuntimeError as error:
        raise InputError(f"{path} cannot be unpacked: {error}", fix="give an archive without a password") from None
