"""Reading snapshots from InfluxDB alone, as any other store is read."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt

from infra.errors import StoreError
from infra.schema import METRIC_NAMES
from infra.steps import format_time, step_start_us
from stream.store.base import GraphInfo, SnapshotTable
from stream.store.influx.address import InfluxAddress
from stream.store.influx.connection import Connection
from stream.store.influx.flux import facts_query, parse_facts, parse_snapshots, snapshots_query
from stream.store.influx.patience import Patience
from stream.store.influx.points import FACT_FIELDS, info_of_facts
from stream.store.influx.unavailable import UnavailableError
from stream.store.unknown import check_metrics, unknown_graph

# Snapshots in one answer; bounds the memory of both sides.
_PAGE_STEPS = 20_000


class InfluxSnapshots:
    """A `SnapshotReader` over one bucket; it may be used from several threads.

    A graph is there up to what its facts say, which are written after the snapshots that they count. Beside a running
    projection every single snapshot is whole; a revision of several steps can be seen in part for a moment.

    Args:
        address: of the bucket.
        patience: how it goes on after failures; that of a command if not given.

    Raises:
        StoreError: InfluxDB cannot be reached, or refuses the token or the bucket.
    """

    def __init__(self, address: InfluxAddress, patience: Patience | None = None) -> None:
        self._patience = patience or Patience.of_command()
        if self._patience.timeout_s is not None:
            address = replace(address, timeout_s=min(address.timeout_s, self._patience.timeout_s))
        self._address = address
        self._lock = threading.Lock()
        self._connection = Connection(address)
        try:
            self.graphs()
        except BaseException:
            self._connection.close()
            raise

    def graphs(self) -> list[GraphInfo]:
        """Return all graphs, by name."""
        return sorted(self._facts(None), key=lambda info: info.name)

    def graph(self, name: str) -> GraphInfo:
        """Return one graph.

        Raises:
            StoreError: there is no such graph; the message names the nearest ones.
        """
        found = self._facts(name)
        if not found:
            raise self._unknown(name)
        return found[0]

    def snapshots(
        self,
        name: str,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        metrics: tuple[str, ...] | None = None,
        last: int | None = None,
    ) -> SnapshotTable:
        """Return snapshots with `start_us <= step_start < end_us`, the newest `last` of them if given.

        Raises:
            StoreError: there is no such graph, a metric is unknown, or some snapshots are not there (yet).
        """
        info = self.graph(name)
        columns = METRIC_NAMES if metrics is None else metrics
        check_metrics(columns)
        first_us, stop_us = _range_of(info, start_us, end_us, last)
        page_us = _PAGE_STEPS * info.step_us
        pages = [
            self._page(info, columns, begin_us, min(begin_us + page_us, stop_us))
            for begin_us in range(first_us, stop_us, page_us)
        ]
        no_steps = np.zeros(0, dtype=np.int64)
        return SnapshotTable(
            graph=name,
            step_us=info.step_us,
            metrics=tuple(columns),
            step_start_us=np.concatenate([no_steps, *(page[0] for page in pages)]),
            revision=np.concatenate([no_steps, *(page[1] for page in pages)]),
            values=np.concatenate([np.zeros((0, len(columns))), *(page[2] for page in pages)]),
        )

    def close(self) -> None:
        """Release the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _facts(self, name: str | None) -> list[GraphInfo]:
        rows = parse_facts(self._ask(facts_query(self._address.bucket, name))).to_pylist()
        return [info_of_facts(row["graph"], {field: row[field] for field in FACT_FIELDS}) for row in rows]

    def _page(
        self, info: GraphInfo, columns: Sequence[str], begin_us: int, end_us: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        fields = None if set(columns) == set(METRIC_NAMES) else (*dict.fromkeys(columns), "revision")
        query = snapshots_query(self._address.bucket, info.name, info.step_us, fields, begin_us, end_us)
        table = parse_snapshots(self._ask(query), tuple(dict.fromkeys(columns)))
        step_us = table["_time"].cast("int64").to_numpy()
        revision = table["revision"].to_numpy()
        values = np.empty((len(step_us), len(columns)))
        for at, name in enumerate(columns):
            values[:, at] = table[name].to_numpy()
        order = np.argsort(step_us, kind="stable")
        self._check_whole(info, step_us[order], begin_us, end_us)
        return step_us[order], revision[order], values[order]

    def _check_whole(self, info: GraphInfo, step_us: npt.NDArray[np.int64], begin_us: int, end_us: int) -> None:
        expected = np.arange(begin_us, end_us, info.step_us, dtype=np.int64)
        if np.array_equal(step_us, expected):
            return
        missing = np.setdiff1d(expected, step_us)
        what = (
            f"lacks {len(missing):,} snapshots of graph {info.name!r}, the first that of {format_time(int(missing[0]))}"
            if len(missing)
            else f"has other snapshots of graph {info.name!r} than were written"
        )
        raise StoreError(
            f"the {self._address.place} {what}",
            fix="wait while they are being projected; if they stay away: graphtide store project --all",
        )

    def _ask(self, query: str) -> bytes:
        with self._lock:
            try:
                return self._patience.ask(lambda: self._connection.query(query), self._address.place)
            except UnavailableError as error:
                raise StoreError(error.message, fix="start InfluxDB, or check host, port and TLS") from None

    def _unknown(self, name: str) -> StoreError:
        names = [info.name for info in self.graphs()]
        if not names:
            return StoreError(
                f"there is no graph {name!r}: nothing was projected yet",
                place=self._address.place,
                fix="project a store of record: graphtide store project",
            )
        return unknown_graph(name, names, self._address.place)


def _range_of(info: GraphInfo, start_us: int | None, end_us: int | None, last: int | None) -> tuple[int, int]:
    """Return the starts of the first step that is wanted and of the first after it that is not."""
    if info.first_step_us is None or info.last_step_us is None:
        return 0, 0
    first_us, stop_us = info.first_step_us, info.last_step_us + info.step_us
    if start_us is not None:
        first_us = max(first_us, _step_from(start_us, info.step_us))
    if end_us is not None:
        stop_us = min(stop_us, _step_from(end_us, info.step_us))
    if last is not None:
        first_us = max(first_us, stop_us - max(last, 0) * info.step_us)
    return first_us, max(first_us, stop_us)


def _step_from(ts_us: int, step_us: int) -> int:
    """Return the start of the first step that begins at or after a time."""
    begin_us = step_start_us(ts_us, step_us)
    return begin_us if begin_us == ts_us else begin_us + step_us
