"""Logs that grew since they were read: what of them was read before, and where to go on behind it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra.errors import InputError
from stream.sources.base import ReadBefore
from stream.sources.compression import Beginning, Member, Text, beginnings
from stream.sources.extents import (
    INSIDE_QUOTE,
    Begin,
    Entry,
    Extent,
    Left,
    digest_of,
    left_with,
    numbered_extents,
    path_of,
    reading_of,
    reads_same_events,
    sources_before,
)
from stream.sources.selection import LogFile

_BLOCK_BYTES = 1 << 20
_ELSEWHERE = "ingest it into a new store, or under another --graph"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A log that was read before from the same place, and whose beginning is not what was read.

    Attributes:
        path: the file.
        label: the log.
        bytes: up to where it was read.
    """

    path: Path
    label: str
    bytes: int

    def error(self, why: str = "") -> InputError:
        """Return it as an error; `why` it cannot be read."""
        return InputError(
            f"{self.label} was ingested before up to byte {self.bytes:,}, and holds something else now"
            f"{why and ': '}{why}",
            place=f"{self.label}, up to byte {self.bytes:,}",
            fix="if it was changed, put back what stood there, and reading goes on behind it; if it is another log, as"
            f" after a rotation, and none of its events was ingested, give it another name (ln {self.path} NEW) and"
            f" ingest that with --backfill; else {_ELSEWHERE}",
        )


@dataclass(frozen=True, slots=True)
class Growth:
    """What of the logs of a source was read before.

    Attributes:
        extents: of each log what was read, with where to begin now; None of one that is new. Empty if all are.
        left_with: the names of the sources that what is left of them is gone on with.
        rewritten: the first log that is new in place of another one.
    """

    extents: tuple[Entry, ...] = ()
    left_with: tuple[str, ...] = ()
    rewritten: Rewritten | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """An extent of a source that was read before, and its number in it."""

    source: ReadBefore
    number: int
    extent: Extent

    @property
    def key(self) -> tuple[str, int]:
        return self.source.name, self.number

    @property
    def reading(self) -> str:
        return reading_of(self.source.name)


@dataclass(frozen=True, slots=True)
class _Log:
    """A log, and what tells it by its place."""

    file: LogFile
    member: Member
    path: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What was read of a log, and how the log begins; None where the file is the one that was read."""

    known: _Known
    head: Beginning | None


def growth_of(
    path: Path, files: Sequence[LogFile], before: Iterable[ReadBefore], reading: str, *, may_be_late: bool
) -> Growth:
    """Return what of the logs of some files was read before; each log that was read is found once.

    A log is known by its place and its beginning, or else, as it may have been moved or packed, by its beginning alone.

    Args:
        path: what the files were chosen by.
        files: the files.
        before: sources that were read; those of files matter.
        reading: how these are read, as the names of sources end.
        may_be_late: events that were read before would count again.

    Raises:
        InputError: it cannot be told where to go on, something that was read has changed, or would count again.
    """
    # Thousands of runs may stand there: what they read is unpacked only where it matters.
    sources = [each for each in before if each.name.startswith("file:")]
    sources = [each for each in sources if reads_same_events(reading_of(each.name), reading)]
    known = list(_all_known(sources))
    logs = [_Log(file, member, path_of(file, member)) for file in files for member in file.logs]
    growth = _growth_of(path, logs, [each for each in known if each.reading == reading], may_be_late=may_be_late)
    if may_be_late or growth.extents:
        new = [log for at, log in enumerate(logs) if not growth.extents or growth.extents[at] is None]
        for at, each in _matches(new, [each for each in known if each.reading != reading]).items():
            raise _read_otherwise(new[at], each.known)
        _check_not_read_earlier(new, [each for each in sources if "logs" not in each.position])
    return growth


def _all_known(sources: Iterable[ReadBefore]) -> Iterator[_Known]:
    for source in sources:
        for number, extent in numbered_extents(source.position):
            if extent.begin is None or not extent.begin.is_copy:
                yield _Known(source, number, extent)


def _check_not_read_earlier(logs: Sequence[_Log], sources: Sequence[ReadBefore]) -> None:
    """Make sure that no log was read by an earlier version, which noted its digest, and at most its size.

    Raises:
        InputError: one was, as it is or before it grew.
    """
    digests = {digest_of(each.name) for each in sources}
    sizes = {size for each in sources if isinstance(size := each.position.get("bytes"), int) and size > 0}
    for log in logs:
        heads = beginnings(log.member, sizes).values() if sizes else ()
        if log.file.digest in digests or any(head.digest in digests for head in heads):
            raise InputError(
                f"{log.member.label} was ingested before by an earlier version, and its events would count again",
                place=log.member.label,
                fix="leave it out, and ingest what was added to it since as a file of its own, with --backfill; else"
                f" {_ELSEWHERE}",
            )


def _growth_of(path: Path, logs: Sequence[_Log], known: Sequence[_Known], *, may_be_late: bool) -> Growth:
    """Return what of some logs was read before, in the same way."""
    if not known:
        return Growth()
    surpassed = {(k.extent.begin.after, k.extent.begin.number) for k in known if k.extent.begin is not None}
    last = [each for each in known if each.key not in surpassed]
    places = {each.extent.path: each for each in last}
    found = _matches(logs, last)
    if is_copy := len(logs) == 1 and not found and logs[0].path not in places:
        # Of a log that went on it is nothing new.
        found = _matches(logs, known)
        for at, each in found.items():
            _check_nothing_behind(logs[at], each.known.extent)
    taken = {each.known.key for each in found.values()}
    changed = [
        Rewritten(log.file.path, log.member.label, places[log.path].extent.bytes)
        for at, log in enumerate(logs)
        if at not in found and log.path in places and places[log.path].key not in taken
    ]
    if changed and (found or may_be_late):
        raise changed[0].error()
    for at, each in found.items():
        if each.known.source.elsewhere:
            raise _being_read(path, logs[at])
        if not each.known.source.ended:
            raise _broken_off(path, logs[at], each.known.extent, alone=len(logs) == 1)
    if not found:
        return Growth(rewritten=changed[0] if changed else None)
    extents = tuple(_begun(log, found[at], is_copy=is_copy) if at in found else None for at, log in enumerate(logs))
    left = {found[at].known.source.name for at, extent in enumerate(extents) if isinstance(extent, Left)}
    return Growth(
        extents, tuple(sorted(left - _gone_on_with({each.known.source.name for each in found.values()}, known)))
    )


def _gone_on_with(names: set[str], known: Iterable[_Known]) -> set[str]:
    """Return the sources that some went on with, and so on: what ended with these has ended with the later ones."""
    before: dict[str, set[str]] = {}
    for each in known:
        if each.source.name not in before:
            before[each.source.name] = set(left_with(each.source.position))
        before[each.source.name].update(sources_before((each.extent,)))
    earlier, pending = set[str](), list(names)
    while pending:
        new = before.get(pending.pop(), set()) - earlier
        earlier |= new
        pending += new
    return earlier


def _check_nothing_behind(log: _Log, extent: Extent) -> None:
    """Make sure that a copy of a log that went on holds no more than an extent of it.

    What stands there besides may be what was added to the log, or not.

    Raises:
        InputError: it holds more.
    """
    blank = b" \t\r\n" + (b"]," if extent.dialect.format == "json" else b"")
    text = Text(log.file.path, log.member, extent.bytes)
    if any(piece.strip(blank) for piece in text.pieces(_BLOCK_BYTES, lambda _: None)):
        label = log.member.label
        raise InputError(
            f"{label} begins as a log that was ingested and has grown since: what of the rest was ingested with that"
            " cannot be told",
            place=f"{label}, behind byte {extent.bytes:,}",
            fix=f"ingest that log as it is now instead; else {_ELSEWHERE}",
        )


def _matches(logs: Sequence[_Log], known: Sequence[_Known]) -> dict[int, _Found]:
    """Return for each log, by its number, the longest of its beginnings that was read; each of them for one log.

    What was read from the place of a log comes first, so that of a folder only what changed is compared with all.
    """
    of_place: dict[str, list[_Known]] = {}
    for each in known:
        of_place.setdefault(each.extent.path, []).append(each)
    found: dict[int, _Found] = {}
    taken: set[tuple[str, int]] = set()
    for elsewhere in (False, True):
        for at, log in enumerate(logs):
            among = known if elsewhere else of_place.get(log.path, ())
            free = [] if at in found else [each for each in among if each.key not in taken]
            if match := _longest(log, free):
                found[at] = match
                taken.add(match.known.key)
    return found


def _longest(log: _Log, known: Sequence[_Known]) -> _Found | None:
    """Return the longest of the beginnings of a log that was read; None if none was."""
    for each in known:
        if (each.extent.path, each.extent.file) == (log.path, log.file.digest):
            return _Found(each, None)
    heads = beginnings(log.member, {each.extent.bytes for each in known}) if known else {}
    fitting = [each for each in known if (head := heads.get(each.extent.bytes)) and head.digest == each.extent.digest]
    if not fitting:
        return None
    longest = max(fitting, key=lambda each: (each.extent.bytes, each.source.ended))
    return _Found(longest, heads[longest.extent.bytes])


def _begun(log: _Log, found: _Found, *, is_copy: bool) -> Extent | Left:
    """Return what was read of a log, with where to go on; of a copy all was. A log that is as it was is left.

    Raises:
        InputError: that cannot be told.
    """
    extent, head = found.known.extent, found.head
    if head is None and not is_copy:
        return Left.UNCHANGED
    # Of documents only the end of the last value is known: behind it at least a bracket may stand.
    is_json = extent.dialect.format == "json"
    whole = is_copy or head is None or not (head.following or is_json)
    byte = extent.bytes if head is None or whole or is_json else _next_byte(log.member.label, extent, head)
    begin = Begin(
        after=found.known.source.name,
        number=found.known.number,
        byte=byte,
        line=extent.next_line,
        in_array=extent.in_array,
        unit=extent.unit,
        whole=whole,
        is_copy=is_copy,
    )
    return replace(extent, path=log.path, file=log.file.digest, begin=begin)


def _next_byte(label: str, extent: Extent, head: Beginning) -> int:
    """Return where reading of lines goes on, by what stands behind those that were read."""
    if extent.next_byte == INSIDE_QUOTE:
        raise InputError(
            f"{label} grew behind a quote that was not closed: where its records begin cannot be told",
            place=f"{label}, byte {extent.bytes:,}",
            fix=f"{_ELSEWHERE}; write whole records",
        )
    if head.last == b"\n" or head.following.startswith((b"\n", b"\r\n")):
        return extent.bytes  # every line was whole, the last one but for its end
    if extent.next_byte < extent.bytes:
        return extent.next_byte
    raise InputError(
        f"{label} grew inside its last line, which was counted when it was not complete",
        place=f"{label}:{extent.next_line}",
        fix=f"{_ELSEWHERE}; write whole lines, or --follow the file",
    )


def _being_read(path: Path, log: _Log) -> InputError:
    return InputError(
        f"{path} grew since another process began to read it, which is not done yet",
        place=log.member.label,
        fix="wait until it is, then run the same command again: what is new then is added",
    )


def _broken_off(path: Path, log: _Log, extent: Extent, *, alone: bool) -> InputError:
    if alone and log.member.is_plain and extent.bytes < log.file.bytes and extent.dialect.format != "json":
        fix = f"head -c {extent.bytes} {path} > FILE, ingest FILE with the same flags, and then {path} again"
    else:
        fix = (
            f"put back what {path} was then, without what is new, ingest it with the same flags, and then as it is now"
        )
    return InputError(
        f"{path} grew after reading it was broken off, and what was there then has to be read to its end first",
        place=f"{log.member.label}, byte {extent.bytes:,}",
        fix=fix,
    )


def _read_otherwise(log: _Log, known: _Known) -> InputError:
    label = log.member.label
    return InputError(
        f"{label} was ingested before with other flags ({known.reading.removeprefix('#') or 'none'}), and its"
        " events would count again",
        place=f"{label}, up to byte {known.extent.bytes:,}",
        fix=f"give the flags of then, and what is new is added; else {_ELSEWHERE}",
    )
