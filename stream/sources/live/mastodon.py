"""Mastodon streaming: reblogs, replies and mentions among new statuses, over server-sent events.

How it streams: https://docs.joinmastodon.org/methods/streaming. The server remembers nothing: what happens between two
connections never comes. Such gaps are counted and told, not hidden.
"""

import msgspec

from infra.steps import SECOND_US
from stream.sources.base import Position
from stream.sources.live.connection import Address, Message
from stream.sources.live.recent import Recent
from stream.sources.live.track import field, gap_note

_NAME = "mastodon"


class _Status(msgspec.Struct):
    id: str | int


_STATUS = msgspec.json.Decoder(_Status)


class MastodonTrack:
    """Follows the stream, and how long it was not connected.

    Args:
        url: of the stream.
        token: of access, "" for none.
        user_agent: who is asking.
        remember: how many statuses are told from repeated ones.
        position: where an earlier run stopped; None if there was none.
    """

    def __init__(self, url: str, *, token: str, user_agent: str, remember: int, position: Position | None) -> None:
        self._url = url
        self._token = token
        self._user_agent = user_agent
        # When the last message came; -1 while none came.
        self._last_at_us = -1
        self._gaps = self._gap_us = 0
        self._recent = Recent(remember)
        self._last_gap = ""
        if position is not None:
            self._last_at_us, self._gaps, self._gap_us = (
                field(position, key, int, _NAME) for key in ("last_at_us", "gaps", "gap_us")
            )
            self._recent = Recent(remember, field(position, "seen", str, _NAME))

    def address(self) -> Address:
        """Return the stream; there is nothing to ask for; see `Track`."""
        headers = {"User-Agent": self._user_agent}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return Address(self._url, headers)

    def connected(self, now_us: int) -> None:
        """Count what lies between the last message and now as a gap; see `Track`."""
        if self._last_at_us >= 0:
            begin_us = min(self._last_at_us, now_us)
            self._gaps += 1
            self._gap_us += now_us - begin_us
            self._last_gap = gap_note(_NAME, begin_us, now_us, "are missing: the server does not repeat them")
        self._last_at_us = now_us

    def is_new(self, message: Message, now_us: int) -> bool:
        """Tell whether a message is new, by the id of its status; see `Track`."""
        self._last_at_us = now_us
        return message.value is not None and self._recent.add(_identity(message))

    def position(self) -> Position:
        """Return when the last message came, the gaps, and the last statuses; see `Track`."""
        return {
            "last_at_us": self._last_at_us,
            "gaps": self._gaps,
            "gap_us": self._gap_us,
            "seen": self._recent.text(),
        }

    def notes(self) -> list[str]:
        """Return the last gap, and the sum of all; see `Track`."""
        if not self._gaps:
            return []
        total = f"{_NAME}: {self._gaps} gaps of {self._gap_us / SECOND_US:,.0f} s together, over all runs"
        return [self._last_gap, total] if self._last_gap else [total]


def _identity(message: Message) -> tuple[bytes, ...]:
    value, event = message.value or b"", message.event.encode()
    if message.event == "update":
        try:
            return (event, str(_STATUS.decode(value).id).encode())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # it is told by its text
    return (event, value)
