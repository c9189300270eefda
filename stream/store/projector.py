"""The projector: a thread that writes every changed snapshot of a store of record to InfluxDB, beside ingestion.

The outbox says what changed; each change's snapshots are read when they are written, so that others see the newest
revision. The thread only reads the store. What it has written it shows as `acknowledged`, for the ingesting thread to
note in a transaction of its own; a crash in between repeats writes, which changes nothing in InfluxDB.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

from infra.errors import GraphtideError, StoreError
from stream.store.base import GraphInfo, SnapshotReader
from stream.store.influx.address import InfluxAddress
from stream.store.influx.claims import Claims
from stream.store.influx.points import facts_line, snapshot_lines
from stream.store.influx.writer import InfluxWriter, StoppedError
from stream.store.outbox import Change, Outbox
from stream.store.projection import pieces, snapshots_of

PROJECTION = "influxdb"
# Changes that one round writes; more wait for the next.
_ROUND_CHANGES = 4096
_IDLE_S = 1.0


@dataclass(frozen=True, slots=True)
class ProjectorStatus:
    """How the projection is doing.

    Attributes:
        waiting: snapshots that are not in InfluxDB yet, as of the last look; one that changed twice counts twice.
        written: snapshots that this projector has written, revisions included.
        error: why the last try failed, None if it did not.
        fix: what the user can do about it.
        down_since_s: `time.time()` of the first of the tries that failed since the last success, None if none did.
        refused: the error is one that trying again does not mend: a wrong token, a bucket that is missing.
        leads: False while another process projects for this store.
        drained: of what `drain` returns: nothing that was committed before it was called is left.
    """

    waiting: int = 0
    written: int = 0
    error: str | None = None
    fix: str | None = None
    down_since_s: float | None = None
    refused: bool = False
    leads: bool = False
    drained: bool = False

    def failing_s(self, now_s: float) -> float | None:
        """Return for how long writing has failed at `now_s`, of `time.time()`; None where it has not."""
        return None if self.down_since_s is None else max(now_s - self.down_since_s, 0.0)


class Projector:
    """Projects one store to one bucket, from `start` to `close`.

    All its methods may be called from any thread, and none but `drain` and `close` waits for InfluxDB.

    The projection has to be enabled in the store: what is not noted in the outbox is not projected.

    Args:
        open_outbox, open_reader: open the store of record; called in the projector's thread, again after a failure.
        address: the bucket.
        take_over: also write graphs that the bucket has of another store of record.
        idle_s: how often to look for changes when `wake` is not called.
    """

    def __init__(
        self,
        open_outbox: Callable[[], Outbox],
        open_reader: Callable[[], SnapshotReader],
        address: InfluxAddress,
        *,
        take_over: bool = False,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._open_outbox = open_outbox
        self._open_reader = open_reader
        self._address = address
        self._take_over = take_over
        self._idle_s = idle_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="projector", daemon=True)
        # Guards everything below, and tells of it.
        self._changed = threading.Condition()
        self._woken = False
        self._status = ProjectorStatus()
        # Changes that InfluxDB has and the outbox still lists, with their numbers of snapshots.
        self._acknowledged: dict[int, int] = {}
        # Those of them that the ingesting thread says it has crossed out since.
        self._noted: set[int] = set()
        self._rounds_begun = 0
        self._last_clean_round = 0

    @property
    def place(self) -> str:
        """What the store is told of where it is projected to: a key of the bucket."""
        return self._address.key

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def wake(self) -> None:
        """Look for changes now: some were committed."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def acknowledged(self) -> list[int]:
        """Return the numbers of the changes that are durably in InfluxDB and are not `noted` yet.

        The ingesting thread passes them to `projected` in its next transaction, and to `noted` after it: what a
        transaction that was rolled back has not noted is returned again.
        """
        with self._changed:
            return sorted(self._acknowledged.keys() - self._noted)

    def noted(self, numbers: Iterable[int]) -> None:
        """Be told that the outbox no longer lists changes, and look for what was committed with that."""
        with self._changed:
            self._noted |= self._acknowledged.keys() & set(numbers)
        self.wake()

    def status(self) -> ProjectorStatus:
        """Return how the projection is doing."""
        with self._changed:
            return self._status

    def drain(self, timeout_s: float) -> ProjectorStatus:
        """Wait until everything that was committed before is in InfluxDB, at most `timeout_s`.

        What `waiting` of the returned status counts is left; it stays in the outbox. The wait ends early where
        InfluxDB refuses the points, which waiting does not mend, and where another process projects.
        """
        with self._changed:
            # A round that has begun may have looked already.
            begun = self._rounds_begun
            self._status = replace(self._status, refused=False)
            self._woken = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._last_clean_round > begun or self._status.refused or not self._thread.is_alive(),
                timeout=timeout_s,
            )
            return replace(self._status, drained=self._last_clean_round > begun)

    def close(self) -> None:
        """End the thread; a request that is on its way is waited for, at most as long as it may take."""
        self._stop.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._project()
            except StoppedError:
                return
            except GraphtideError as error:
                self._fail(error, refused=True)
            except Exception as error:  # noqa: BLE001 - a projection that ended in silence would look like an idle one
                self._fail(StoreError(f"this should not happen: {type(error).__name__}: {error}"), refused=True)
            self._wait(self._address.max_wait_s)

    def _project(self) -> None:
        """Do rounds until the stop event is set, or until an error that another try at once would meet again."""
        with self._open_outbox() as outbox, self._open_reader() as reader:

            def note(error: StoreError | None) -> None:
                # While InfluxDB is away nothing else moves.
                if error is not None:
                    self._look(outbox)
                    self._fail(error)

            with InfluxWriter(self._address, stop=self._stop, on_try=note) as writer:
                claims = Claims(self._address, writer, outbox.store_id(), take_over=self._take_over)
                claims.leave(outbox.rebuilt_from(self._address.store_url))
                shown: dict[str, GraphInfo] = {}
                while not self._stop.is_set():
                    if self._round(outbox, reader, writer, claims, shown):
                        self._wait(self._idle_s)

    def _round(
        self,
        outbox: Outbox,
        reader: SnapshotReader,
        writer: InfluxWriter,
        claims: Claims,
        shown: dict[str, GraphInfo],
    ) -> bool:
        """Write what changed; return whether nothing is left of what was there when the round began.

        Args:
            outbox, reader, writer: from where to where.
            claims: the graphs that may be written.
            shown: the facts of graphs as they were last written; kept up to date.
        """
        with self._changed:
            self._rounds_begun += 1
            number = self._rounds_begun
        if not outbox.elect(PROJECTION):
            return self._follow(outbox, shown, number)
        # Read before the changes: every snapshot that the facts count is then in this round, or was in one before.
        facts = [info for info in reader.graphs() if info.name not in claims.left]
        changes, is_all = self._pending(outbox)
        graphs = {info.name for info in reader.graphs()} - claims.left
        news = [info for info in facts if shown.get(info.name) != info]
        if changes or news:
            claims.hold(graphs)
        for piece in pieces(changes):
            if not outbox.elect(PROJECTION):
                return self._follow(outbox, shown, number)
            tables = snapshots_of(reader, piece, graphs)
            writer.write(chain.from_iterable(map(snapshot_lines, tables)))
            self._acknowledge(piece, graphs)
        if not outbox.elect(PROJECTION):
            return self._follow(outbox, shown, number)
        if is_all:
            writer.write(map(facts_line, news))
            shown.update((info.name, info) for info in news)
        self._look(outbox)
        self._succeed(leads=True, clean_round=number if is_all else None)
        return is_all

    def _follow(self, outbox: Outbox, shown: dict[str, GraphInfo], number: int) -> bool:
        """Leave the work to another process, which may change what this one has written."""
        shown.clear()
        with self._changed:
            self._acknowledged.clear()
            self._noted.clear()
        self._look(outbox)
        self._succeed(leads=False, clean_round=number)
        return True

    def _pending(self, outbox: Outbox) -> tuple[list[Change], bool]:
        """Return the changes to write and whether these are all; forget what the outbox no longer lists."""
        with self._changed:
            known = set(self._acknowledged)
        limit = len(known) + _ROUND_CHANGES
        listed = outbox.pending(PROJECTION, limit)
        is_all = len(listed) < limit
        if is_all:
            gone = known - {change.number for change in listed}
            with self._changed:
                for number in gone:
                    del self._acknowledged[number]
                self._noted -= gone
        return [change for change in listed if change.number not in known], is_all

    def _acknowledge(self, changes: Sequence[Change], graphs: Collection[str]) -> None:
        """Show changes as done; those of `graphs` were written, the others are there."""
        with self._changed:
            self._acknowledged.update((change.number, change.n_steps) for change in changes)
            written = self._status.written + sum(change.n_steps for change in changes if change.graph in graphs)
            self._status = replace(self._status, written=written, error=None, fix=None, down_since_s=None)
            self._changed.notify_all()

    def _look(self, outbox: Outbox) -> None:
        """Count what waits."""
        listed = outbox.waiting(PROJECTION)
        with self._changed:
            written = sum(n for number, n in self._acknowledged.items() if number not in self._noted)
            waiting = max(listed - written, 0)
            self._status = replace(self._status, waiting=waiting)

    def _succeed(self, *, leads: bool, clean_round: int | None) -> None:
        with self._changed:
            self._status = replace(self._status, error=None, fix=None, down_since_s=None, refused=False, leads=leads)
            if clean_round is not None:
                self._last_clean_round = clean_round
            self._changed.notify_all()

    def _fail(self, error: GraphtideError, *, refused: bool = False) -> None:
        with self._changed:
            since_s = self._status.down_since_s or time.time()
            self._status = replace(
                self._status, error=error.message, fix=error.fix, down_since_s=since_s, refused=refused
            )
            self._changed.notify_all()

    def _wait(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._stop.is_set(), timeout=timeout_s)
            self._woken = False
