"""Wikimedia EventStreams: the edits on all wikis, over server-sent events that can be resumed.

How it resumes: https://wikitech.wikimedia.org/wiki/Event_Platform/EventStreams_HTTP_Service. The id of an event names
the time that each partition has reached; the server goes on at these times, so it repeats some events.
"""

import msgspec

from stream.sources.base import Position
from stream.sources.live.connection import Address, Message
from stream.sources.live.recent import Recent
from stream.sources.live.track import field, gap_note

_NAME = "wikimedia"
# The server keeps a week at least; what is older may be gone.
_KEPT_US = 7 * 86_400_000_000


class _Meta(msgspec.Struct):
    id: str
    stream: str = ""


class _Change(msgspec.Struct):
    meta: _Meta


_CHANGE = msgspec.json.Decoder(_Change)


class WikimediaTrack:
    """Follows the stream by the ids that the server gives.

    Args:
        url: of the stream.
        user_agent: who is asking; Wikimedia wants to know.
        remember: how many messages are told from repeated ones.
        position: where to go on; None for the messages that come from now on.
    """

    def __init__(self, url: str, *, user_agent: str, remember: int, position: Position | None) -> None:
        self._url = url
        self._user_agent = user_agent
        self._last_event_id = ""
        self._last_at_us = 0
        self._recent = Recent(remember)
        self._gap = ""
        if position is not None:
            self._last_event_id = field(position, "last_event_id", str, _NAME)
            self._last_at_us = field(position, "last_at_us", int, _NAME)
            self._recent = Recent(remember, field(position, "seen", str, _NAME))

    def address(self) -> Address:
        """Return the stream, to go on after the last id; see `Track`."""
        headers = {"User-Agent": self._user_agent}
        if self._last_event_id:
            headers["Last-Event-ID"] = self._last_event_id
        return Address(self._url, headers)

    def connected(self, now_us: int) -> None:
        """Note a gap where the server cannot have everything any more; see `Track`."""
        if self._last_event_id and now_us - self._last_at_us > _KEPT_US:
            self._gap = gap_note(
                _NAME, self._last_at_us, now_us, "may be missing: the server keeps a week, and this took longer"
            )

    def is_new(self, message: Message, now_us: int) -> bool:
        """Tell whether a message is new, by the id that its sender gave it; see `Track`."""
        if message.id:
            self._last_event_id = message.id
            self._last_at_us = now_us
        return message.value is not None and self._recent.add(_identity(message.value))

    def position(self) -> Position:
        """Return the last id and the last messages; see `Track`."""
        return {
            "last_event_id": self._last_event_id,
            "last_at_us": self._last_at_us,
            "seen": self._recent.text(),
        }

    def notes(self) -> list[str]:
        """Return the gap, if there is one; see `Track`."""
        return [self._gap] if self._gap else []


def _identity(value: bytes) -> tuple[bytes, ...]:
    try:
        meta = _CHANGE.decode(value).meta
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return (value,)
    return (meta.stream.encode(), meta.id.encode())
