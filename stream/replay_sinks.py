"""Where a replay can go: a topic of Kafka, or lines of a file."""

import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

from infra.errors import GraphtideError
from stream.encoders import Encoded


class _Sender(Protocol):
    """What is needed of `stream.sources.kafka.sender.KafkaSender`."""

    def send(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None: ...

    def flush(self) -> None: ...


class KafkaSink:
    """Sends records to a topic.

    The records have the time of their sending: Kafka deletes by it, and would drop an old log as soon as it has come.

    Args:
        sender: open; closing it is the caller's affair.
        topic: it has to exist.
    """

    def __init__(self, sender: _Sender, topic: str) -> None:
        self._sender = sender
        self._topic = topic

    def send(self, key: bytes, record: Encoded) -> None:
        """Hand a record to the client; see `Sink`."""
        self._sender.send(self._topic, record.value, key=key, headers=record.headers)

    def flush(self) -> None:
        """Wait for the acknowledgement of all records; see `Sink`."""
        self._sender.flush()


class LineSink:
    """Writes records as lines, whole ones only.

    Args:
        file: open for writing bytes; closing it is the caller's affair.
        name: as errors name it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def send(self, key: bytes, record: Encoded) -> None:
        """Write a record; see `Sink`."""
        del key
        end = b"" if record.value.endswith(b"\n") else b"\n"
        self._write(record.value + end)

    def flush(self) -> None:
        """Hand what was written to the system; see `Sink`."""
        try:
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> GraphtideError:
        reason = error.strerror or os.strerror(error.errno or 0)
        return GraphtideError(f"{self._name} cannot be written: {reason}", fix="free some space, or write elsewhere")
