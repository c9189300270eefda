"""The corpus that the general forecaster is trained on: many graphs, made of few logs.

A log gives a graph for every step size, and more by its parts: the events that a random share of its nodes send are a
smaller network of the same kind. Nothing of a log behind the end of its training part is ever looked at.

Shape suffixes: E events, T steps, M metrics.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import step_start_us
from models.contract import History
from stream.snapshots import step_metrics
from stream.sources.base import Source

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EventLog:
    """The events of one graph in order of time.

    Attributes:
        ts_E: event times in microseconds since the epoch, ascending.
        src_E, dst_E: node codes.
    """

    ts_E: IntArray
    src_E: IntArray
    dst_E: IntArray

    def __len__(self) -> int:
        return len(self.ts_E)

    @classmethod
    def read(cls, source: Source) -> "EventLog":
        """Return all events of a source, whatever graph they name.

        Raises:
            InputError: the source cannot be read, or has no event.
        """
        parts = [batch.events for batch in source.batches(None)]
        ts_E = np.concatenate([part.ts_us for part in parts])
        order = np.argsort(ts_E, kind="stable")
        src_E = np.concatenate([part.src for part in parts])
        dst_E = np.concatenate([part.dst for part in parts])
        return cls(ts_E[order], src_E[order], dst_E[order])

    def until(self, end_us: int) -> "EventLog":
        """Return the events before `end_us`."""
        n = int(np.searchsorted(self.ts_E, end_us))
        return EventLog(self.ts_E[:n], self.src_E[:n], self.dst_E[:n])

    def sent_by_share(self, share: float, seed: int) -> "EventLog":
        """Return the events that a random share of the nodes send."""
        nodes = int(max(self.src_E.max(initial=0), self.dst_E.max(initial=0))) + 1
        kept = np.random.default_rng(seed).random(nodes) < share
        rows = kept[self.src_E]
        return EventLog(self.ts_E[rows], self.src_E[rows], self.dst_E[rows])

    def history(self, step_us: int, end_us: int | None = None) -> History:
        """Return the snapshots of the whole steps from the first event on, the same as ingestion would make.

        Args:
            step_us: step size.
            end_us: where the log ends, if it goes on behind its last event; the step that holds it is left out.

        Raises:
            ValueError: there is no event.
        """
        if len(self) == 0:
            raise ValueError("a log without events has no snapshots")
        start_us = int(step_start_us(int(self.ts_E[0]), step_us))
        step_E = (self.ts_E - start_us) // step_us
        n_steps = int(step_E[-1]) + 1 if end_us is None else (end_us - start_us) // step_us
        within = step_E < n_steps
        step_E, src_E, dst_E = step_E[within], self.src_E[within], self.dst_E[within]
        ones_E = np.ones(len(step_E), dtype=np.int64)
        values_TM = np.zeros((n_steps, len(METRIC_NAMES)))
        for name, column in step_metrics(step_E, src_E, dst_E, ones_E, n_steps).items():
            values_TM[:, METRIC_INDEX[name]] = column
        nodes = np.concatenate([src_E, dst_E])
        pairs = src_E * (int(nodes.max(initial=0)) + 1) + dst_E
        for of, total, step in (
            ("nodes", nodes, np.concatenate([step_E, step_E])),
            ("edges", pairs, step_E),
        ):
            new_T = np.bincount(_first_steps(total, step), minlength=n_steps)
            values_TM[:, METRIC_INDEX[f"new_{of}"]] = new_T
            values_TM[:, METRIC_INDEX[f"total_{of}"]] = np.cumsum(new_T)
        return History(step_us, start_us, values_TM)


def _first_steps(names: IntArray, step: IntArray) -> IntArray:
    """Return the step at which each distinct name occurs first."""
    order = np.lexsort((step, names))
    names, step = names[order], step[order]
    is_first = np.ones(len(names), dtype=bool)
    is_first[1:] = names[1:] != names[:-1]
    return step[is_first]
