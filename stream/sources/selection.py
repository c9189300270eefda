"""Which logs a path stands for: a file, the members of an archive, the files of a folder that look like logs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions
from stream.decoders.detect import detect
from stream.decoders.log import HEAD_BYTES
from stream.sources.compression import Member, members, reading

_LOG_SUFFIXES = frozenset(
    (".txt", ".csv", ".tsv", ".json", ".ndjson", ".jsonl", ".edges", ".edgelist", ".el", ".log", ".dat", ".data", "")
)
_PACKED_SUFFIXES = (".gz", ".zst", ".zip")
_NO_LOGS = frozenset(("readme", "license", "licence", "copying", "changelog", "notice", "sha256sums", "md5sums"))
_HASH_BLOCK_BYTES = 1 << 20
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file with logs, as it was when it was chosen.

    Attributes:
        path: where it is.
        logs: what is read of it.
        bytes: its size, packed as it is.
        changed_ns: when it was last changed.
        digest: SHA-256 of its bytes, in hex.
    """

    path: Path
    logs: tuple[Member, ...]
    bytes: int
    changed_ns: int
    digest: str

    def check_unchanged(self) -> None:
        """Make sure that the file is still the one that was chosen.

        Raises:
            InputError: it changed.
        """
        with reading(self.path):
            now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self.bytes, self.changed_ns):
            raise InputError(
                f"{self.path} changed while it was read",
                fix="wait until it is complete, or follow it as it grows: --follow",
            )


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to read, by name, and what was left out, each with the reason."""

    files: tuple[LogFile, ...]
    left_out: tuple[str, ...]


def select_logs(path: Path, options: DecodeOptions) -> Selection:
    """Return the logs that `path` stands for.

    A file is taken as it is. Of a folder (its subfolders are not entered) and of an archive with several members those
    are taken whose names and beginnings look like logs.

    Raises:
        InputError: there is nothing to read, or it cannot be read.
    """
    if not path.is_dir():
        logs = members(path)
        left_out: list[str] = []
        if len(logs) > 1:
            logs = _that_look_like_logs(logs, options, left_out)
        if not logs:
            raise _nothing(path, left_out)
        return Selection((log_file(path, logs),), tuple(left_out))
    left_out = []
    chosen: list[LogFile] = []
    try:
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{path} cannot be listed: {error.strerror or error}") from None
    for entry in entries:
        if entry.is_dir():
            left_out.append(f"{entry} (a folder)")
        elif not _has_name_of_a_log(entry.name):
            left_out.append(f"{entry} (by its name)")
        elif logs := _that_look_like_logs(members(entry), options, left_out):
            chosen.append(log_file(entry, logs))
    if not chosen:
        raise _nothing(path, left_out)
    return Selection(tuple(chosen), tuple(left_out))


def log_file(path: Path, logs: Sequence[Member]) -> LogFile:
    """Return a file as it is now, with what is read of it.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path):
        stat = path.stat()
    return LogFile(path, tuple(logs), stat.st_size, stat.st_mtime_ns, file_digest(path))


def file_digest(path: Path, n_bytes: int | None = None) -> str:
    """Return the SHA-256 of the first `n_bytes` of a file (None: of all), in hex.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    left = n_bytes
    with reading(path) as file:
        while block := file.read(_HASH_BLOCK_BYTES if left is None else min(left, _HASH_BLOCK_BYTES)):
            digest.update(block)
            left = None if left is None else left - len(block)
    return digest.hexdigest()


def _has_name_of_a_log(name: str) -> bool:
    pure = PurePath(name.lower())
    if pure.suffix in _PACKED_SUFFIXES:
        pure = pure.with_suffix("")
    if pure.name.startswith(("out.", "part-")):
        return True
    return not name.startswith(".") and pure.suffix in _LOG_SUFFIXES and pure.stem not in _NO_LOGS


def _that_look_like_logs(logs: list[Member], options: DecodeOptions, left_out: list[str]) -> list[Member]:
    chosen = []
    for log in logs:
        head = bytearray()
        for piece in log.pieces(HEAD_BYTES, lambda _: None):
            head += piece
            if len(head) >= HEAD_BYTES:
                break
        try:
            detect(bytes(head[:HEAD_BYTES]), label=log.label, options=options, whole=len(head) < HEAD_BYTES)
        except InputError as error:
            left_out.append(f"{log.label} ({error.message})")
        else:
            chosen.append(log)
    return chosen


def _nothing(path: Path, left_out: list[str]) -> InputError:
    what = "is empty" if not left_out else "holds no log"
    shown = "; ".join(left_out[:_SHOWN])
    more = f"; and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return InputError(
        f"{path} {what}",
        place=f"left out: {shown}{more}" if left_out else None,
        fix="give a folder with JSON, NDJSON, CSV, TSV or edge list files, or name a file itself",
    )
