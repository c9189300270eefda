"""How a live source is followed: what is new, where it stands, and what to ask of the server to go on from there."""

from typing import Any, Protocol, TypeVar

from infra.errors import InputError
from infra.steps import format_time
from stream.sources.base import Position
from stream.sources.live.connection import Address, Message

Kind = TypeVar("Kind", int, str)


class Track(Protocol):
    """The state of one stream, apart from the connection. A new one that is given its position goes on exactly."""

    def address(self) -> Address:
        """Return where to connect now, to get everything that was not yet seen, and perhaps a little that was."""
        ...

    def connected(self, now_us: int) -> None:
        """Note that the connection stands; messages of it follow."""
        ...

    def is_new(self, message: Message, now_us: int) -> bool:
        """Take a message that came at `now_us`; return whether it was never seen before."""
        ...

    def position(self) -> Position:
        """Return where the stream stands behind all messages that were taken."""
        ...

    def notes(self) -> list[str]:
        """Return what the user should know about the stream, such as gaps."""
        ...


def field(position: Position, key: str, kind: type[Kind], source: str) -> Kind:
    """Return a part of a position.

    Raises:
        InputError: the position was written by another kind of source.
    """
    value: Any = position.get(key)
    if type(value) is not kind:
        raise InputError(
            f"{source} cannot be resumed: the store has another kind of position for it",
            fix="ingest it into a new store",
        )
    return value


def gap_note(source: str, begin_us: int, end_us: int, why: str) -> str:
    """Return the words for messages that are missing, or may be."""
    return f"{source}: messages between {format_time(begin_us)} and {format_time(end_us)} {why}"
