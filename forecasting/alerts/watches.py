"""Watches: which process judges a graph, up to where it is judged, and the forecasts that its next steps are held to.

A graph is judged by one process at a time, which takes a lease and a fencing token. All that a judgement leads to is
one transaction that names the token.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.alerts.records import Judgement, begin_anew, record
from forecasting.alerts.rulebook import RuleRow, is_current, note
from forecasting.bookkeeping.base import Connection
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError
from infra.schema import METRICS, QUANTILE_LEVELS
from models.contract import FloatArray

_SHAPE = (len(METRICS), len(QUANTILE_LEVELS))


class LostWatchError(GraphtideError):
    """Another process judges the graph now."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A graph that is this process's to judge.

    Attributes:
        graph: its name.
        judged_us, final_us: starts of the last closed and of the last final step that were judged; None before the
            first.
        fence: the token.
    """

    graph: str
    judged_us: int | None
    final_us: int | None
    fence: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What judging a graph led to.

    Attributes:
        judged_us, final_us: as in `Watch`, from now on.
        judgements: of each rule, in the order of steps.
        failed: why rules could not be judged, by name.
        forecasts: (start of the step, lead) to quantiles [M, Q]; those that are kept already stay.
        current: the same of the state at the last step; they replace what is kept.
        is_anew: whether the graph is another than the one that was judged before.
    """

    judged_us: int
    final_us: int | None
    judgements: Sequence[tuple[RuleRow, list[Judgement]]]
    failed: Mapping[str, str]
    forecasts: Mapping[tuple[int, int], FloatArray]
    current: Mapping[tuple[int, int], FloatArray]
    is_anew: bool = False


class Watches:
    """The watches in a service's file.

    Args:
        file: where they are.
        lease_s: seconds after which a graph whose process does not report is judged by another.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(self, file: ServiceFile, *, lease_s: float, clock: Callable[[], int] | None = None) -> None:
        self._file = file
        self._lease_us = int(lease_s * 1e6)
        self._clock = clock or file.now_us

    def grounds(self) -> dict[str, str]:
        """Return what the last judgement of each graph rests on."""
        return dict(self._file.rows("SELECT graph, ground FROM alert_watches"))

    def claim(self, graph: str, ground: str) -> Watch | None:
        """Take a graph whose last judgement rests on something else than `ground`; None where it is not to be had."""
        now = self._clock()
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO alert_watches (graph, ground, fence) VALUES (?, '', 0) ON CONFLICT (graph) DO NOTHING",
                (graph,),
            )
            row = connection.execute(
                "UPDATE alert_watches SET fence = fence + 1, lease_until_us = ? WHERE graph = ? AND ground != ?"
                " AND (lease_until_us IS NULL OR lease_until_us < ?) RETURNING judged_us, final_us, fence",
                (now + self._lease_us, graph, ground, now),
            ).fetchone()
        return None if row is None else Watch(graph, *row)

    def renew(self, watch: Watch) -> None:
        """Extend the lease.

        Raises:
            LostWatchError: the graph is not this process's any more.
        """
        with self._file.transaction() as connection:
            _fenced(connection, watch, "lease_until_us = ?", self._clock() + self._lease_us)

    def release(self, watch: Watch) -> None:
        """Leave a graph to whoever comes next; nothing was judged."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE alert_watches SET lease_until_us = NULL WHERE graph = ? AND fence = ?",
                (watch.graph, watch.fence),
            )

    def forecasts(self, graph: str, steps_us: Iterable[int]) -> dict[tuple[int, int], FloatArray]:
        """Return the forecasts that were kept of these steps: (start, lead) to quantiles [M, Q]."""
        wanted = list(steps_us)
        if not wanted:
            return {}
        rows = self._file.rows(
            "SELECT step_us, lead, quantiles FROM alert_forecasts WHERE graph = ? AND step_us BETWEEN ? AND ?",
            (graph, min(wanted), max(wanted)),
        )
        return {(step_us, lead): np.frombuffer(body, dtype="<f8").reshape(_SHAPE) for step_us, lead, body in rows}

    def keep(self, watch: Watch, ground: str, found: Judged) -> None:
        """Keep what judging a graph led to, and leave the graph.

        Raises:
            LostWatchError: the graph is not this process's any more; nothing is kept.
        """
        now = self._clock()
        with self._file.transaction() as connection:
            _fenced(
                connection,
                watch,
                "ground = ?, judged_us = ?, final_us = ?, lease_until_us = NULL",
                *(ground, found.judged_us, found.final_us),
            )
            if found.is_anew:
                begin_anew(connection, watch.graph)
                connection.execute("DELETE FROM alert_forecasts WHERE graph = ?", (watch.graph,))
            for row, judgements in found.judgements:
                if judgements and is_current(connection, row):
                    record(connection, row.rule, row.created_us, watch.graph, judgements, now)
            note(connection, {row.rule.name: len(judgements) for row, judgements in found.judgements}, found.failed)
            anew = "UPDATE SET quantiles = excluded.quantiles, made_us = excluded.made_us"
            for change, kept in (("NOTHING", found.forecasts), (anew, found.current)):
                for (step_us, lead), quantiles in kept.items():
                    connection.execute(
                        "INSERT INTO alert_forecasts (graph, step_us, lead, quantiles, made_us) VALUES (?, ?, ?, ?, ?)"
                        f" ON CONFLICT (graph, step_us, lead) DO {change}",
                        (watch.graph, step_us, lead, np.ascontiguousarray(quantiles, dtype="<f8").tobytes(), now),
                    )
            if found.final_us is not None:
                connection.execute(
                    "DELETE FROM alert_forecasts WHERE graph = ? AND step_us <= ?", (watch.graph, found.final_us)
                )


def _fenced(connection: Connection, watch: Watch, change: str, *values: object) -> None:
    sql = f"UPDATE alert_watches SET {change} WHERE graph = ? AND fence = ?"
    if connection.execute(sql, (*values, watch.graph, watch.fence)).rowcount != 1:
        raise LostWatchError(f"the alerts of {watch.graph!r} are not this process's to judge any more")
