"""The contract of encoders, and the encoder of each format by its name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.errors import UsageError
from stream.events import Event

JSON_TYPE = b"application/json"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The payload of a record and its headers."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Encoder(Protocol):
    """Makes one record of events, from which the decoder of the format makes the same events again."""

    @property
    def holds_many(self) -> bool:
        """A record can hold more than one event."""
        ...

    def encode(self, events: Sequence[Event]) -> Encoded:
        """Return a record that holds valid events, one at least; those of `UNNAMED_GRAPH` name no graph in it."""
        ...


def event_encoder(name: str) -> Encoder:
    """Return the encoder of a format.

    Raises:
        UsageError: there is no encoder of that name.
    """
    if name not in _MAKERS:
        raise UsageError(f"events cannot be written as {name!r}", fix=f"use one of {', '.join(ENCODINGS)}")
    return _MAKERS[name]()


def _json() -> Encoder:
    from stream.encoders.json import JsonEncoder  # noqa: PLC0415 - each format loads what it needs alone

    return JsonEncoder()


def _ndjson() -> Encoder:
    from stream.encoders.json import NdjsonEncoder  # noqa: PLC0415

    return NdjsonEncoder()


def _arrow() -> Encoder:
    from stream.encoders.arrow import ArrowEncoder  # noqa: PLC0415

    return ArrowEncoder()


def _cloudevents() -> Encoder:
    from stream.encoders.cloudevents import BinaryEncoder  # noqa: PLC0415

    return BinaryEncoder()


def _structured() -> Encoder:
    from stream.encoders.cloudevents import StructuredEncoder  # noqa: PLC0415

    return StructuredEncoder()


_MAKERS: dict[str, Callable[[], Encoder]] = {
    "json": _json,
    "ndjson": _ndjson,
    "arrow": _arrow,
    "cloudevents": _cloudevents,
    "cloudevents-structured": _structured,
}
ENCODINGS = tuple(_MAKERS)
