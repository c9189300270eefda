"""Server-sent events out of bytes, in bounded memory: of an event that is too long, its beginning and id are kept.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation.
"""

from collections.abc import Iterator

from stream.sources.live.connection import BEGINNING_BYTES, Message

# Of a line other than data, and of any line of an event that is too long already.
_LINE_BYTES = 4096
_RETRY_DIGITS = 12
_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Cuts one stream into messages.

    Args:
        max_bytes: of the data of an event; a longer one becomes a message without a payload.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # The line that is not ended yet, and whether some of it was dropped.
        self._line = bytearray()
        self._is_cut = False
        self._is_first = True
        self._ended_in_cr = False
        # Holds for later events, too, until another one comes.
        self._id = ""
        self._begin()

    def feed(self, block: bytes) -> Iterator[Message]:
        """Yield the messages that end in a further part of the stream."""
        if self._ended_in_cr and block.startswith(b"\n"):
            block = block[1:]
            self._ended_in_cr = False
        if block:
            self._ended_in_cr = block.endswith(b"\r")
        # Of bytes, this parts at the three ends of lines that there are, and at nothing else.
        for piece in block.splitlines(keepends=True):
            text = piece.rstrip(b"\r\n")
            self._add(text)
            if len(text) == len(piece):
                return  # the last one, which is not ended yet
            line, is_cut = bytes(self._line), self._is_cut
            self._line.clear()
            self._is_cut = False
            if self._is_first:
                line = line.removeprefix(_BOM)
                self._is_first = False
            if line:
                self._take(line, is_cut)
            else:
                yield from self._end()

    def _begin(self) -> None:
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._beginning: bytes | None = None
        self._event = ""
        self._retry_s: float | None = None

    def _add(self, text: bytes) -> None:
        room = _LINE_BYTES
        if self._beginning is None:
            room += self._max_bytes - self._data_bytes
        room -= len(self._line)
        self._is_cut |= len(text) > room
        self._line += text[: max(room, 0)]

    def _take(self, line: bytes, is_cut: bool) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._take_data(value, is_cut)
        elif is_cut or len(line) > _LINE_BYTES:
            return  # a comment, or what no server means
        elif name == b"event":
            self._event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self._retry_s = int(value) / 1000

    def _take_data(self, value: bytes, is_cut: bool) -> None:
        if self._beginning is not None:
            return
        n_bytes = self._data_bytes + bool(self._data) + len(value)
        if is_cut or n_bytes > self._max_bytes:
            self._beginning = b"\n".join([*self._data, value])[:BEGINNING_BYTES]
            self._data = []
            return
        self._data.append(value)
        self._data_bytes = n_bytes

    def _end(self) -> Iterator[Message]:
        value = b"\n".join(self._data).decode(errors="replace").encode()
        message = Message(
            value=value or None,
            event=self._event if self._event != "message" else "",
            id=self._id,
            retry_s=self._retry_s,
            too_long=self._beginning,
        )
        self._begin()
        # A blank line behind a comment ends nothing.
        if message != Message():
            yield message
