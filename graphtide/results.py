"""What the client returns: values with pandas frames, made from the service's JSON and Arrow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import pandas as pd

Document = Mapping[str, Any]
_PATH = "path_"
# From here on not every whole number has a float of its own.
_EXACT = 2**53
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph of the service; times are None while no step is closed."""

    graph: str
    step: str
    snapshots: int
    events: int
    late: int
    first_step: pd.Timestamp | None
    last_step: pd.Timestamp | None

    @classmethod
    def of(cls, document: Document) -> Self:
        """Return the graph that a document describes; members that are not known are left out."""
        known = {one.name: document[one.name] for one in fields(cls)}
        for name in ("first_step", "last_step"):
            known[name] = None if known[name] is None else pd.Timestamp(known[name])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast.

    Attributes:
        graph: of which graph.
        frame: a row a step and metric: `step_start` (UTC), `metric`, `mean`, a column a quantile (`q0.1`, …) and a
            column a sample path (`path_0`, …), where paths were asked for.
        provenance: what it rests on: model, last observed step, whether a floor answered.
    """

    graph: str
    frame: pd.DataFrame
    provenance: dict[str, Any]

    @property
    def degraded(self) -> bool:
        """Whether a floor answered in the place of a model."""
        return bool(self.provenance["degraded"])

    @property
    def calibrated_on(self) -> str | None:
        """On which graphs it was found how far intervals hold: `this graph`, `other graphs`; None for a floor.

        None as well where the service does not tell, as of a job from before it did.
        """
        return self.provenance.get("calibrated_on")

    def metric(self, name: str) -> pd.DataFrame:
        """Return the mean and the quantiles of one metric by step.

        Raises:
            KeyError: the forecast is not of that metric.
        """
        rows = self._rows(name)
        return rows[[column for column in rows.columns if not column.startswith(_PATH)]]

    def paths(self, name: str) -> pd.DataFrame:
        """Return the sample paths of one metric by step, a column a path; column i of all metrics is one future.

        Raises:
            KeyError: the forecast is not of that metric.
        """
        rows = self._rows(name)
        return rows[[column for column in rows.columns if column.startswith(_PATH)]]

    def _rows(self, name: str) -> pd.DataFrame:
        rows = self.frame[self.frame["metric"] == name]
        if rows.empty:
            raise KeyError(f"no {name!r} in this forecast, which is of {', '.join(self.frame['metric'].unique())}")
        return rows.drop(columns="metric").set_index("step_start")


@dataclass(frozen=True, slots=True)
class Job:
    """A long-range forecast that was asked for."""

    id: str
    graph: str
    status: str
    horizon: int
    steps_done: int
    problem: str | None
    provenance: dict[str, Any] | None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in {"done", "failed", "cancelled"}

    @classmethod
    def of(cls, document: Document) -> Self:
        """Return the job that a document describes."""
        names = ("id", "graph", "status", "horizon", "problem", "provenance")
        return cls(**{name: document[name] for name in names}, steps_done=document["progress"]["steps_done"])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some steps of a long-range forecast, as soon as they were computed.

    Attributes:
        first_step: number of the first of them, from 0.
        steps: how many.
        frame: as that of a `Forecast`.
    """

    first_step: int
    steps: int
    frame: pd.DataFrame


@dataclass(frozen=True, slots=True)
class News:
    """Something that happened to a graph.

    Attributes:
        kind: `snapshot`, `forecast` or `history`.
        id: where to go on behind it.
        document: the event's members.
    """

    kind: str
    id: str
    document: dict[str, Any]

    def forecast(self) -> Forecast:
        """Return the forecast of an event that is one."""
        return forecast_of(self.document)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of events that were sent.

    Attributes:
        accepted, rejected: how many.
        errors: what is wrong with rejected ones: the number of the record among all that were sent, from 1, and why.
    """

    accepted: int = 0
    rejected: int = 0
    errors: tuple[tuple[int, str], ...] = ()

    def plus(self, document: Document, records_before: int) -> "Taken":
        """Return this and what a further answer says of records that come after `records_before` others."""
        errors = tuple((records_before + int(one["record"]), str(one["detail"])) for one in document["errors"])
        return Taken(self.accepted + document["accepted"], self.rejected + document["rejected"], self.errors + errors)


def series_frame(outputs: Sequence[Document], paths: Document | None = None) -> pd.DataFrame:
    """Return the series of a forecast, and its sample paths by metric, as rows; see `Forecast.frame`."""
    parts = []
    for one in outputs:
        steps = len(one["mean_forecast"])
        # In microseconds, as Arrow has them: nanoseconds end in the year 2262.
        index = pd.date_range(one["start_timestamp"], periods=steps, freq=_offset(one["frequency"]), unit="us")
        quantiles = {f"q{level}": values for level, values in one["quantiles"].items()}
        futures = {f"{_PATH}{path}": values for path, values in enumerate((paths or {}).get(one["name"], ()))}
        columns = {"step_start": index, "metric": one["name"], "mean": one["mean_forecast"], **quantiles, **futures}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def forecast_of(document: Document) -> Forecast:
    """Return a forecast from the service's answer with series."""
    frame = series_frame(document["outputs"], document.get("paths"))
    return Forecast(document["graph"], frame, dict(document["provenance"]))


def snapshot_frame(rows: Sequence[Document], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Return snapshots by `step_start` (UTC): `revision` and a column a metric.

    Where there is no row, the columns are `revision` and `metrics`.
    """
    frame = (
        pd.DataFrame(list(rows)) if rows else pd.DataFrame(columns=["step_start", "revision", *metrics], dtype=float)
    )
    frame["step_start"] = pd.to_datetime(frame["step_start"], utc=True)
    return frame.set_index("step_start")


def event_records(events: pd.DataFrame | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return events as JSON-able objects; of a frame each row is one, its times in ISO 8601 and gaps left out.

    A gap makes floats of a column of whole numbers, which names no node: beside one they are whole numbers again. Those
    from 2⁵³ on have lost digits by then, and stay what they are; a column of dtype `Int64` keeps all.
    """
    if not isinstance(events, pd.DataFrame):
        return [dict(event) for event in events]
    columns = {str(name): _plain(events[name]) for name in events.columns}
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*columns.values(), strict=True)
    ]


def _plain(column: "pd.Series[Any]") -> list[Any]:
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return [None if pd.isna(moment) else moment.isoformat() for moment in column]
    if column.dtype == "float64" and column.hasnans:
        known = column.dropna()
        if ((known % 1 == 0) & (known.abs() < _EXACT)).all():
            column = column.astype("Int64")
    # Of a list, `isna` would tell each of its items.
    return [None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in column.tolist()]


def _offset(frequency: str) -> pd.Timedelta:
    return pd.Timedelta(seconds=int(frequency[:-1]) * _SECONDS[frequency[-1]])
