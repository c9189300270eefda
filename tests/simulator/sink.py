"""A simulated InfluxDB: it merges fields by series and time, and is away, slow, or forgets to answer at times.

The real projector and its writer run on top of it; only the HTTP connection is replaced.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from unittest.mock import patch

from stream.store.influx.address import InfluxAddress
from stream.store.influx.unavailable import UnavailableError
from stream.store.influx.writer import StoppedError
from stream.store.outbox import Outbox
from stream.store.projector import Projector
from stream.store.sql.reader import SqlSnapshots
from tests.simulator.clock import Clock, Trace


@dataclass
class Sink:
    """The points, and what is about to go wrong.

    Attributes:
        points: measurement with tags, and time, to fields as line protocol has them.
        down_until_us: until then nothing answers.
        partial: so many requests are written in part, and fail.
        lost_acks: so many requests are written, and seem to fail.
        slow_until_us: until then requests take long, so that the rest of the world goes on meanwhile.
    """

    clock: Clock
    trace: Trace
    points: dict[tuple[str, int], str] = field(default_factory=dict)
    down_until_us: int = 0
    partial: int = 0
    lost_acks: int = 0
    slow_until_us: int = 0

    def write(self, who: str, body: bytes, pause: Callable[[], None]) -> None:
        """Take points in line protocol.

        Raises:
            UnavailableError: it failed, perhaps after some of them, or all, were written.
        """
        if self.clock.elapsed_us < self.slow_until_us:
            pause()
        if self.clock.elapsed_us < self.down_until_us:
            raise _unavailable("it is down")
        lines = body.decode().split("\n")
        if self.partial:
            self.partial -= 1
            self._add(lines[: len(lines) // 2])
            self.trace.note("sink", f"takes {len(lines) // 2} of {len(lines)} points from {who}, then fails")
            raise _unavailable("it failed in the middle")
        self._add(lines)
        self.trace.note("sink", f"takes {len(lines)} points from {who}")
        if self.lost_acks:
            self.lost_acks -= 1
            self.trace.note("sink", "its answer is lost")
            raise _unavailable("no answer came")

    def _add(self, lines: list[str]) -> None:
        for line in lines:
            series, fields, time_us = line.split(" ")
            key = series, int(time_us)
            before = self.points.get(key)
            if before is not None and before != fields:
                # InfluxDB merges: a field that is not written keeps its old value.
                fields = ",".join(f"{name}={value}" for name, value in (fields_of(before) | fields_of(fields)).items())
            self.points[key] = fields


def fields_of(text: str) -> dict[str, str]:
    """Return the values of fields in line protocol, by name."""
    pairs = (part.split("=", 1) for part in text.split(","))
    return dict(pairs)


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError(f"the simulated InfluxDB does not answer: {why}", fix="wait")


@dataclass(frozen=True, kw_only=True)
class SimulatedAddress(InfluxAddress):
    """The address of a simulated InfluxDB as one process sees it."""

    sink: Sink
    who: str
    pause: Callable[[], None]


class SimulatedConnection:
    """Takes the place of `stream.store.influx.connection.Connection`."""

    def __init__(self, address: SimulatedAddress) -> None:
        self._address = address

    def write(self, lines: bytes) -> None:
        """Write points."""
        self._address.sink.write(self._address.who, lines, self._address.pause)

    def close(self) -> None:
        """Release nothing."""


def simulated_connections() -> AbstractContextManager[object]:
    """Let writers of InfluxDB use simulated connections meanwhile."""
    return patch("stream.store.influx.writer.Connection", SimulatedConnection)


class _StopEvent(threading.Event):
    """An event whose wait lets the rest of the world go on instead."""

    def __init__(self, pause: Callable[[], None]) -> None:
        super().__init__()
        self._pause = pause

    def wait(self, timeout: float | None = None) -> bool:
        """Let others run once, however long the wait would take."""
        del timeout
        self._pause()
        return self.is_set()


class SimulatedProjector(Projector):
    """The real projector, run by a fiber: where its thread would wait, it pauses."""

    def __init__(
        self, open_outbox: Callable[[], Outbox], open_reader: Callable[[], SqlSnapshots], address: SimulatedAddress
    ) -> None:
        super().__init__(open_outbox, open_reader, address)
        self._pause_fiber = address.pause
        self._stop = _StopEvent(address.pause)
        # All fibers are one thread, which a lock of the usual kind would let in twice.
        self._changed = threading.Condition(threading.Lock())

    def live(self) -> None:
        """Project for ever; what the thread does."""
        try:
            self._run()
        except StoppedError:
            return

    def _wait(self, timeout_s: float) -> None:
        del timeout_s
        self._pause_fiber()
