"""Bluesky Jetstream: likes, reposts, follows and replies, over a WebSocket that can be resumed.

How it resumes: https://github.com/bluesky-social/jetstream. The cursor is the server's `time_us`. Another server of the
same service may give the same message another time, so reading begins a little before the cursor.
"""

from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from stream.sources.base import Position
from stream.sources.live.connection import Address, Message
from stream.sources.live.recent import Recent
from stream.sources.live.track import field, gap_note

_NAME = "jetstream"
_COLLECTIONS = "wantedCollections"
# The server leaves out messages that are longer.
_MAX_BYTES = "maxMessageSizeBytes"


class _Commit(msgspec.Struct):
    rev: str = ""
    operation: str = ""
    collection: str = ""
    rkey: str = ""


class _Head(msgspec.Struct):
    time_us: int
    did: str = ""
    kind: str = ""
    commit: _Commit | None = None


_HEAD = msgspec.json.Decoder(_Head)


class JetstreamTrack:
    """Follows the stream by the times that the server gives.

    What the server repeats is told by the identities of the last messages. Where more lie inside the overlap than are
    remembered, reading goes on behind those that were forgotten, so that none of them comes again.

    Args:
        url: of the server.
        collections: what to ask for, where the URL does not say.
        user_agent: who is asking.
        overlap_us: how far before the cursor reading begins.
        remember: how many messages are told from repeated ones.
        max_message_bytes: once a message was longer, the server is asked to leave out such ones: where one stands is
            not known, so that no cursor leads past it alone.
        position: where to go on; None for the messages that come from now on.
    """

    def __init__(
        self,
        url: str,
        collections: Sequence[str],
        *,
        user_agent: str,
        overlap_us: int,
        remember: int,
        max_message_bytes: int,
        position: Position | None,
    ) -> None:
        parts = urlsplit(url)
        query = [(key, value) for key, value in parse_qsl(parts.query) if key != "cursor"]
        if not any(key == _COLLECTIONS for key, _ in query):
            query += [(_COLLECTIONS, collection) for collection in collections]
        self._parts = parts
        self._query = query
        self._user_agent = user_agent
        self._overlap_us = overlap_us
        self._max_message_bytes = max_message_bytes
        self._is_bounded = False
        # The latest time seen, and the one up to which all messages were seen and may be forgotten.
        self._time_us = self._floor_us = -1
        self._recent = Recent(remember)
        if position is not None:
            self._time_us = field(position, "time_us", int, _NAME)
            self._floor_us = field(position, "floor_us", int, _NAME)
            self._recent = Recent(remember, field(position, "seen", str, _NAME), self._time_us)
        # The time that this connection has to pass before it brings something new; None once it did.
        self._behind_us: int | None = None
        self._repeated = False
        self._gaps: list[str] = []
        self._n_gaps = 0

    def address(self) -> Address:
        """Return the server, to go on a little before the latest time; see `Track`."""
        query = list(self._query)
        if self._is_bounded:
            query = [(key, value) for key, value in query if key != _MAX_BYTES]
            query.append((_MAX_BYTES, str(self._max_message_bytes)))
        if self._time_us >= 0:
            query.append(("cursor", str(max(self._time_us - self._overlap_us, self._forgotten_us() + 1))))
        url = urlunsplit(self._parts._replace(query=urlencode(query)))
        return Address(url, {"User-Agent": self._user_agent}, bounded=self._is_bounded)

    def connected(self, now_us: int) -> None:
        """Expect repeated messages; see `Track`."""
        del now_us
        self._behind_us = self._time_us if self._time_us >= 0 else None
        self._repeated = False

    def is_new(self, message: Message, now_us: int) -> bool:
        """Tell whether a message is new, by what it says of itself; see `Track`."""
        del now_us
        self._is_bounded |= message.too_long is not None
        if message.value is None:
            return False
        head = _head(message.value)
        # What cannot be read stands where it came.
        time_us = self._time_us if head is None else head.time_us
        if self._behind_us is not None and time_us > self._behind_us:
            self._caught_up(time_us)
        if self._behind_us is not None and head is not None and time_us <= self._forgotten_us():
            self._repeated = True
            return False
        fresh = self._recent.add((message.value,) if head is None else _identity(head), time_us)
        self._repeated |= not fresh
        self._time_us = max(self._time_us, time_us)
        return fresh

    def position(self) -> Position:
        """Return the latest time and the last messages; see `Track`."""
        return {"time_us": self._time_us, "floor_us": self._forgotten_us(), "seen": self._recent.text()}

    def notes(self) -> list[str]:
        """Return the last gap, and how many there were; see `Track`."""
        if not self._n_gaps:
            return []
        others = f" ({self._n_gaps - 1} more gaps before)" if self._n_gaps > 1 else ""
        return [self._gaps[-1] + others]

    def _forgotten_us(self) -> int:
        return max(self._floor_us, self._recent.forgotten_us)

    def _caught_up(self, time_us: int) -> None:
        """Note a gap where the server did not begin before the cursor: it no longer has what was asked for."""
        assert self._behind_us is not None
        # Where everything in the overlap was forgotten, nothing can come again.
        asked_for_some = self._overlap_us > 0 and self._forgotten_us() < self._behind_us
        if asked_for_some and not self._repeated:
            why = "may be missing: the server no longer had them, or is another one"
            self._gaps = [gap_note(_NAME, self._behind_us, time_us, why)]
            self._n_gaps += 1
        self._behind_us = None


def _head(value: bytes) -> _Head | None:
    try:
        return _HEAD.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _identity(head: _Head) -> tuple[bytes, ...]:
    commit = head.commit
    if commit is None or not commit.rkey:
        return (head.did.encode(), head.kind.encode(), str(head.time_us).encode())
    parts = (head.did, commit.collection, commit.rkey, commit.operation, commit.rev)
    return tuple(part.encode() for part in parts)
