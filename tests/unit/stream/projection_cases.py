"""A store of record in memory, with an outbox, and an InfluxDB in memory that can be told to fail."""

import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import numpy as np

from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS, Kind
from infra.steps import HOUR_US
from stream.store.base import GraphInfo, SnapshotTable
from stream.store.outbox import Change

START_US = 400_000 * HOUR_US


def some_snapshots(
    graph: str, steps: int, *, step_us: int = HOUR_US, start_us: int = START_US, seed: int = 0
) -> SnapshotTable:
    """Return snapshots of revision 0 with random values of the right kinds."""
    random = np.random.default_rng(seed)
    values = np.empty((steps, len(METRICS)))
    for at, metric in enumerate(METRICS):
        values[:, at] = random.random(steps) if metric.kind is Kind.SHARE else random.integers(0, 2**53, steps)
    return SnapshotTable(
        graph,
        step_us,
        METRIC_NAMES,
        start_us + step_us * np.arange(steps, dtype=np.int64),
        np.zeros(steps, dtype=np.int64),
        values,
    )


class MemoryStore:
    """Snapshots, and the changes that a projection has not written; it is its own reader and its own outbox."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tables: dict[str, SnapshotTable] = {}
        self._changes: dict[int, Change] = {}
        self._number = 0
        self.late = 0
        self.leads = True
        self.id = ""
        # The graphs that were restored from any place.
        self.rebuilt: list[str] = []
        self.broken: StoreError | None = None

    def add(self, table: SnapshotTable) -> None:
        """Append the steps of a table to a graph, or begin it."""
        with self._lock:
            held = self._tables.get(table.graph)
            joined = table
            if held is not None:
                assert held.step_start_us[-1] + held.step_us == table.step_start_us[0]
                joined = _joined(held, table)
            self._tables[table.graph] = joined
            self._note(table)

    def revise(self, graph: str, at: int, *, steps: int = 1) -> None:
        """Write steps anew with the next revision."""
        with self._lock:
            table = self._tables[graph]
            table.revision[at : at + steps] += 1
            table.values[at : at + steps, METRIC_INDEX["events"]] += 1
            self._note(_cut(table, at, at + steps))

    def projected(self, numbers: Sequence[int]) -> None:
        with self._lock:
            for number in numbers:
                self._changes.pop(number, None)

    def graphs(self) -> list[GraphInfo]:
        with self._lock:
            if self.broken is not None:
                raise self.broken
            return [
                GraphInfo(
                    name,
                    table.step_us,
                    len(table),
                    int(table.values[:, METRIC_INDEX["events"]].sum()) // 2**20,
                    int(table.step_start_us[0]) if len(table) else None,
                    int(table.step_start_us[-1]) if len(table) else None,
                    self.late,
                )
                for name, table in sorted(self._tables.items())
            ]

    def graph(self, name: str) -> GraphInfo:
        return next(info for info in self.graphs() if info.name == name)

    def snapshots(
        self,
        name: str,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        metrics: tuple[str, ...] | None = None,
        last: int | None = None,
    ) -> SnapshotTable:
        assert metrics is None and last is None
        with self._lock:
            table = self._tables[name]
            begin = 0 if start_us is None else int(np.searchsorted(table.step_start_us, start_us))
            end = len(table) if end_us is None else int(np.searchsorted(table.step_start_us, end_us))
            return _cut(table, begin, end)

    def elect(self, projection: str) -> bool:
        return self.leads

    def pending(self, projection: str, limit: int) -> list[Change]:
        assert projection == "influxdb"
        with self._lock:
            return list(self._changes.values())[:limit]

    def waiting(self, projection: str) -> int:
        with self._lock:
            return sum(change.n_steps for change in self._changes.values())

    def store_id(self) -> str:
        return self.id

    def rebuilt_from(self, origin: str) -> list[str]:
        return self.rebuilt

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def _note(self, table: SnapshotTable) -> None:
        if not len(table):
            return
        self._number += 1
        first_us, last_us = int(table.step_start_us[0]), int(table.step_start_us[-1])
        self._changes[self._number] = Change(self._number, table.graph, table.step_us, first_us, last_us)


def _cut(table: SnapshotTable, begin: int, end: int) -> SnapshotTable:
    columns = (table.step_start_us, table.revision, table.values)
    return SnapshotTable(table.graph, table.step_us, table.metrics, *(column[begin:end].copy() for column in columns))


def _joined(first: SnapshotTable, second: SnapshotTable) -> SnapshotTable:
    return SnapshotTable(
        first.graph,
        first.step_us,
        first.metrics,
        np.concatenate((first.step_start_us, second.step_start_us)),
        np.concatenate((first.revision, second.revision)),
        np.concatenate((first.values, second.values)),
    )


class FakeInflux:
    """An HTTP server that keeps lines by series and time as InfluxDB does; `answers` decides how each write ends.

    Attributes:
        points: the fields of each point, as text, by series and time.
        bodies: the bodies of all writes, those that failed included.
        answers: called with the number of the write, from 0; returns its status and headers. A status of 500 and above
            keeps the first half of the lines, as a server does that fails in the middle.
    """

    def __init__(self) -> None:
        self.points: dict[tuple[str, str], str] = {}
        self.bodies: list[bytes] = []
        self.authorizations: set[str | None] = set()
        self.answers: Callable[[int], tuple[int, dict[str, str]]] = lambda number: (204, {})
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.startswith("/api/v2/query"):
                    self.answer(fake.claims())
                    return
                fake.authorizations.add(self.headers["Authorization"])
                status, headers = fake.answers(len(fake.bodies))
                fake.bodies.append(body)
                lines = body.decode().split("\n")
                kept = lines if status < 300 else lines[: len(lines) // 2] if status >= 500 else []
                for line in kept:
                    series, fields, time = line.rsplit(" ", 2)
                    fake.points[series, time] = fields
                self.send_response(status)
                text = b"" if status == 204 else b'{"code": "some", "message": "as told, for secret"}'
                for name, value in {"Content-Length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def answer(self, text: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def claims(self) -> bytes:
        """Return the answer to the one query that a projector asks: which store writes which graph."""
        rows = [
            f',,0,{fields.split("=")[1]},"{series.split("graph=")[1].split(",schema=")[0].replace(chr(92), "")}"\r\n'
            for (series, _), fields in self.points.items()
            if series.startswith("graphtide_stores,")
        ]
        return "".join([",result,table,_value,graph\r\n", *rows, "\r\n"] if rows else ["\r\n"]).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
