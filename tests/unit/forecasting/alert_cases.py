"""A store that grows and is revised, and a process that watches it, for tests of alerts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from forecasting import alert_worker
from forecasting.alert_worker import Watcher
from forecasting.alerts.records import DELIVERIES, AlertRow, Alerts
from forecasting.alerts.rulebook import RuleBook
from forecasting.alerts.rules import checked
from forecasting.reports.deliveries import Deliveries
from forecasting.service_file import ServiceFile
from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES, METRICS
from infra.settings import AlertRuleSettings, Settings
from infra.steps import HOUR_US
from models.contract import FloatArray
from stream.store.base import GraphInfo, SnapshotTable
from tests.unit.forecasting.forecast_cases import START_US

EVENTS = METRIC_INDEX["events"]
# Two days: too few for a model, so that the simple method answers, in milliseconds.
BEGUN = 48
SURPRISE = {"kind": "surprise", "metrics": ["events"], "false_discovery_rate": 0.3}
# The next step is close to the last ones: 100 events are below 150 for sure, 400 are not.
LOW = {"kind": "forecast", "metric": "events", "below": 50, "within": 3, "probability": 0.5}
STALE = {"kind": "stale", "after": "3h"}


def steady(n_steps: int, seed: int = 0) -> FloatArray:
    """Return steps with about a hundred events each."""
    values = np.zeros((n_steps, len(METRICS)))
    values[:, EVENTS] = np.random.default_rng(seed).integers(90, 111, size=n_steps)
    return values


@dataclass
class GrowingStore:
    """A `SnapshotReader` over an array; `final` steps cannot be revised, all where it is None."""

    values: FloatArray = field(default_factory=lambda: steady(BEGUN))
    final: int | None = None
    names: list[str] = field(default_factory=lambda: ["town"])
    broken: bool = False

    def add(self, *events: float) -> None:
        """Close a step for each number of events."""
        more = np.zeros((len(events), len(METRICS)))
        more[:, EVENTS] = events
        self.values = np.concatenate([self.values, more])

    @property
    def last_us(self) -> int:
        """Start of the last step."""
        return START_US + (len(self.values) - 1) * HOUR_US

    def graphs(self) -> list[GraphInfo]:
        return [self.graph(name) for name in self.names]

    def graph(self, name: str) -> GraphInfo:
        if self.broken or name not in self.names:
            raise StoreError("the store is away")
        final_us = None if self.final is None else START_US + self.final * HOUR_US
        events = int(self.values[:, EVENTS].sum())
        return GraphInfo(name, HOUR_US, len(self.values), events, START_US, self.last_us, 0, final_us)

    def snapshots(
        self,
        name: str,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        metrics: tuple[str, ...] | None = None,
        last: int | None = None,
    ) -> SnapshotTable:
        self.graph(name)
        begin = 0 if start_us is None else max(0, (start_us - START_US) // HOUR_US)
        end = len(self.values) if end_us is None else (end_us - START_US) // HOUR_US
        values = self.values[begin:end]
        starts = START_US + HOUR_US * np.arange(begin, begin + len(values))
        return SnapshotTable(name, HOUR_US, METRIC_NAMES, starts, np.zeros(len(values), dtype=np.int64), values)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Side:
    """One process that watches: a connection of its own to the shared file, and a clock that stands still."""

    def __init__(self, folder: Path, store: GrowingStore, place: Path | str | None = None, **alerts: Any) -> None:
        place = place or folder / "service.db"
        targets = {name: {"kind": "folder", "path": str(folder / name)} for name in ("one", "two")}
        self.settings = Settings(
            api={"service_db": place},  # type: ignore[arg-type]
            models={"directory": folder / "models"},  # type: ignore[arg-type]
            reports={"targets": targets},  # type: ignore[arg-type]
            alerts={"paths": 50, "window": "1d", **alerts},  # type: ignore[arg-type]
        )
        self.store = store
        self.now = store.last_us + 2 * HOUR_US
        self.file = ServiceFile(place)
        self.watcher = Watcher(self.file, lambda: store, self.settings, lambda: self.now)
        self.book = RuleBook(self.file, lambda: self.now)
        self.alerts = Alerts(self.file, keep_s=3600, clock=lambda: self.now)
        self.deliveries = Deliveries(
            self.file, self.settings.reports, lease_s=60, clock=lambda: self.now, queue=DELIVERIES
        )

    def rule(self, name: str, **spec: Any) -> None:
        """Set a rule."""
        given = AlertRuleSettings(**{"graph": "town", "deliver": ["one"], **spec})
        self.book.put(checked(name, given, self.settings.reports.targets), owner="")

    def all(self) -> list[AlertRow]:
        """Return the alerts."""
        return self.alerts.newest(self.alerts.graphs(), ["ok", "firing", "resolved"], limit=1000)

    def one(self) -> AlertRow:
        """Return the only alert."""
        (found,) = self.all()
        return found

    def told(self) -> list[tuple[int, str]]:
        """Return number and state of what is queued or delivered, in order."""
        rows = self.file.rows(
            "SELECT d.number, t.state FROM alert_deliveries AS d JOIN alert_transitions AS t ON t.id = d.transition_id"
            " ORDER BY t.alert_id, d.number"
        )
        return [(number, state) for number, state in rows]

    def deliver(self) -> int:
        """Deliver what is due; return how much that was."""
        count = 0
        while alert_worker.deliver_next(self.deliveries, self.alerts, self.settings):
            count += 1
        return count
