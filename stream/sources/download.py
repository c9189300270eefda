"""Fetching a file from its publisher: streamed, bounded, checked by its digest, in place whole or not at all."""

import bz2
import gzip
import hashlib
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

import httpx

from infra.errors import InputError
from infra.whole_file import whole_file

Row = Callable[[str], str | None]
Progress = Callable[[int, int | None], None]

_CHUNK_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 20
_MAX_UNPACKED_BYTES = 1 << 30
# What the unpacking libraries raise on damaged or foreign bytes, besides an OSError without a number.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """How a file is made from what a publisher serves.

    Attributes:
        url: what to fetch.
        member: name of the file inside the archive that is served; None for a single file.
        row: turns a served line into a line of the file, None for a line that is no record; None keeps all bytes.
        header: the first line of the file, if it has one that is not served.
        line_end: what ends each line of the file.
        ends_with_newline: whether the last line is ended, too.
        as_served: the digest is that of the served bytes. If False it is that of a copy in another layout, and whether
            the publisher's present file holds the same rows in the same order is not certain.
        max_bytes: largest download.
    """

    url: str
    member: str | None = None
    row: Row | None = None
    header: str = ""
    line_end: str = "\n"
    ends_with_newline: bool = True
    as_served: bool = True
    max_bytes: int = 64 << 20


def pick(*columns: int, separator: str = " ") -> Row:
    """Return a `Row` that keeps the given columns (counted from 0) of lines split at commas or white space."""

    def row(line: str) -> str | None:
        fields = line.replace(",", " ").split()
        if len(fields) <= max(columns) or not fields[0].isdigit():
            return None
        return separator.join(fields[column] for column in columns)

    return row


def jodie_row(*, first_item: int) -> Row:
    """Return a `Row` for `user,item,time,label,features…`: whole times, no features, items numbered after the users."""

    def row(line: str) -> str | None:
        user, _, rest = line.partition(",")
        if not user.isdigit():
            return None
        item, time, label = rest.split(",", 3)[:3]
        return f"{user},{int(item) + first_item},{int(float(time))},{int(float(label))}"

    return row


def file_sha256(path: Path) -> str:
    """Return the digest of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    download: Download,
    target: Path,
    *,
    sha256: str,
    by_hand: str,
    mirror: str | None = None,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> None:
    """Fetch a file and put it at `target` if its digest is right.

    Args:
        download: what to fetch and how the file is made from it.
        target: where the file goes; nothing is left there, or beside it, on failure.
        sha256: digest that the file must have.
        by_hand: what the user can do instead, for the errors.
        mirror: scheme, host and perhaps a path in the place of those of the publisher.
        timeout_s: longest wait for the connection and for each part of the answer.
        progress: called with the bytes so far and their expected number, if known.

    Raises:
        InputError: the server cannot be reached, refuses, breaks off, sends too much or something else.
        GraphtideError: the file cannot be written.
    """
    url = mirror.rstrip("/") + urlsplit(download.url).path if mirror else download.url
    with whole_file(target) as temporary, tempfile.TemporaryFile(dir=target.parent) as served:
        try:
            for chunk in _stream(url, download.max_bytes, timeout_s, progress):
                served.write(chunk)
        except (_RefusedError, httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise InputError(f"the download failed: {reason}", place=url, fix=by_hand) from error
        served.seek(0)
        with temporary.open("wb") as out:
            try:
                for part in _file_parts(download, served, url):
                    out.write(part)
            except _DAMAGE as error:
                raise InputError(f"what was served is damaged: {error}", place=url, fix=by_hand) from error
            except OSError as error:
                if error.errno is not None:
                    raise
                raise InputError(f"what was served is damaged: {error}", place=url, fix=by_hand) from error
        found = file_sha256(temporary)
        if found != sha256:
            doubt = "the file was changed on the way or at its publisher"
            if not download.as_served:
                doubt = "the digest is of a copy in another layout, whose rows the publisher's may not have"
            raise InputError(f"wrong digest {found}, expected {sha256}: {doubt}", place=url, fix=by_hand)


class _RefusedError(Exception):
    """The server or this side does not go on with a download."""


def _stream(url: str, max_bytes: int, timeout_s: float, progress: Progress | None) -> Iterator[bytes]:
    # Raw bytes: some servers label a .gz file as `Content-Encoding: gzip`; it must not be unpacked on the way.
    identity = {"Accept-Encoding": "identity"}
    with httpx.stream("GET", url, headers=identity, follow_redirects=True, timeout=timeout_s) as response:
        if not response.is_success:
            raise _RefusedError(f"the server answered {response.status_code} {response.reason_phrase}")
        length = response.headers.get("Content-Length", "")
        expected = int(length) if length.isdigit() else None
        done = 0
        for chunk in response.iter_raw(_CHUNK_BYTES):
            done += len(chunk)
            if done > max_bytes:
                raise _RefusedError(f"more than {max_bytes:,} bytes were sent")
            yield chunk
            if progress is not None:
                progress(done, expected)


def _file_parts(download: Download, served: IO[bytes], url: str) -> Iterator[bytes]:
    """Yield the bytes of the file from the bytes that were served."""
    if download.row is None:
        yield from iter(lambda: served.read(_CHUNK_BYTES), b"")
        return
    end = download.line_end.encode()
    if download.header:
        yield download.header.encode() + end
    pending = b""
    with _unpacked(download.member, served, url) as lines:
        unpacked = 0
        while line := lines.readline(_MAX_LINE_BYTES):
            unpacked += len(line)
            if unpacked > _MAX_UNPACKED_BYTES:
                raise ValueError(f"it unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB")
            kept = download.row(line.decode("utf-8", "replace").strip())
            if kept is not None:
                yield pending + kept.encode()
                pending = end
    if download.ends_with_newline:
        yield pending


@contextmanager
def _unpacked(member: str | None, served: IO[bytes], url: str) -> Iterator[IO[bytes]]:
    """Open the file inside what was served, by the ending of the address."""
    suffix = PurePosixPath(urlsplit(url).path).suffix
    if suffix == ".zip":
        with zipfile.ZipFile(served) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).name == member]
            if not names:
                raise ValueError(f"the archive holds no {member}")
            with archive.open(names[0]) as file:
                yield file
    elif suffix == ".bz2" and member is not None:
        with bz2.open(served) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            for entry in tar:
                extracted = tar.extractfile(entry) if PurePosixPath(entry.name).name == member else None
                if extracted is not None:
                    yield extracted
                    return
            raise ValueError(f"the archive holds no {member}")
    elif suffix == ".gz":
        with gzip.open(served) as unpacked_gz:
            yield unpacked_gz  # type: ignore[misc]
    else:
        yield served
