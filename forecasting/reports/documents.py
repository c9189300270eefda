"""A report as data: the facts that `report.json` holds, and the bundle of files for other programs."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from forecasting.reports.aggregate import COLUMN_INDEX, COLUMNS, PeriodFan, Periods, rule_of
from forecasting.reports.calendar import Scale, Times
from forecasting.reports.contents import Findings
from forecasting.reports.findings import Move
from forecasting.reports.outlook import SHOWN_LEVELS, Outlook
from infra.schema import METRIC_NAMES
from infra.steps import format_duration, format_time
from models.contract import FloatArray

FACTS_SCHEMA = 1
_NUMBERS = ("mean", *(f"q{level:g}" for level in SHOWN_LEVELS))
# Forecasts with seven digits, which say all that they know; what was observed with all of them.
_PERIOD_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("scale", "start", "column", "rule")),
        ("observed", pa.float64()),
        *((name, pa.float32()) for name in (*_NUMBERS, "above")),
    ]
)
# Files in an archive carry a time; a fixed one keeps equal reports equal.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
# Columns whose forecast is compared with that of the last report.
_MOVED = ("events", "active_nodes", "total_nodes")


def facts_of(
    found: Findings, summary: list[str], outlook: Outlook, card: Mapping[str, Any], made: str
) -> dict[str, Any]:
    """Return what a report says, JSON-able; two reports with one seed on the same data differ in `made` alone."""
    scale = found.changes_scale
    return {
        "schema": FACTS_SCHEMA,
        "graphtide": version("graphtide"),
        "graph": found.graph,
        "made": made,
        "horizon": found.request.horizon,
        "seed": found.request.seed,
        "paths": found.request.paths,
        "step": format_duration(found.step_us),
        "first_step": format_time(outlook.first_us),
        "until": format_time(outlook.until_us),
        "provenance": dict(found.provenance),
        "summary": summary,
        "history_short": found.history_short,
        "changes": {
            "scale": scale,
            "rows": [
                {
                    **{key: value for key, value in asdict(change).items() if key != "sure_from_us"},
                    "direction": change.direction,
                    "sure_from": None if change.sure_from_us is None else format_time(change.sure_from_us),
                }
                for change in found.changes
            ],
        },
        "skill": None if found.skill is None else asdict(found.skill),
        "past": {
            "made": found.past_from,
            "scores": [asdict(score) for score in found.past],
            "moves": [
                {
                    "column": move.column,
                    "scale": move.scale,
                    "start": format_time(move.start_us),
                    "before": move.before,
                    "now": move.now,
                }
                for move in found.past_moves
            ],
        },
        "quality": asdict(found.quality),
        "near": _near(outlook),
        "periods": {str(scale): _periods(fan) for scale, fan in found.ahead.items()},
        "card": dict(card),
    }


def _near(outlook: Outlook) -> dict[str, Any]:
    near = outlook.near()
    columns_NMC = np.concatenate([near.mean[..., None], near.quantiles], axis=-1)
    return {
        "start": format_time(outlook.first_us),
        "columns": {
            metric: {name: _digits(columns_NMC[:, m, c]) for c, name in enumerate(_NUMBERS)}
            for m, metric in enumerate(METRIC_NAMES)
        },
    }


def _digits(values: FloatArray) -> Any:
    """Return numbers with the seven digits of float32, which is what a forecast is worth; those of the tables too."""
    shown = np.ascontiguousarray(values, dtype=np.float32)
    return orjson.loads(orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY))


def _columns(fan: PeriodFan) -> FloatArray:
    return np.concatenate([fan.fan.mean[..., None], fan.fan.quantiles], axis=-1)


def _periods(fan: PeriodFan) -> dict[str, Any]:
    columns_NCC = _columns(fan)
    return {
        "start": _times(fan.start_us),
        "observed_steps": fan.observed_steps,
        "columns": {
            column: {
                "rule": rule_of(column),
                **{name: _digits(columns_NCC[:, index, c]) for c, name in enumerate(_NUMBERS)},
                # No number is null in JSON.
                "above": _digits(fan.above[:, index]),
            }
            for index, column in enumerate(COLUMNS)
        },
    }


@dataclass(frozen=True, slots=True)
class LastForecast:
    """What an earlier report forecast.

    Attributes:
        made: when it was made.
        first_us: start of its first step.
        columns_NMC: [N, M, 6] its first steps, the mean and the shown quantiles.
        periods: by scale and column, the median of each period by its start, as text.
    """

    made: str
    first_us: int
    columns_NMC: FloatArray
    periods: Mapping[str, Mapping[str, Mapping[str, float]]]

    def moves(self, ahead: Mapping[Scale, PeriodFan]) -> list[Move]:
        """Return the medians before and now of the last period that both forecast, a long one rather than a short."""
        for scale in reversed(list(ahead)):
            fan, before = ahead[scale], self.periods.get(scale, {})
            for row in reversed(range(len(fan))):
                start_us = int(fan.start_us[row])
                start = format_time(start_us)
                found = [
                    Move(
                        column,
                        scale,
                        start_us,
                        before[column][start],
                        float(fan.fan.quantiles[row, COLUMN_INDEX[column], 2]),
                    )
                    for column in _MOVED
                    if start in before.get(column, {})
                ]
                if found:
                    return found
        return []


def last_forecast(facts: Mapping[str, Any] | None, step_us: int) -> LastForecast | None:
    """Return what the facts of an earlier report forecast; None for none, or for those of another schema or step."""
    if facts is None or facts.get("schema") != FACTS_SCHEMA or facts.get("step") != format_duration(step_us):
        return None
    near = facts["near"]["columns"]
    columns_NMC = np.stack([np.column_stack([near[m][name] for name in _NUMBERS]) for m in METRIC_NAMES], axis=1)
    periods = {
        scale: {column: dict(zip(one["start"], one["columns"][column]["q0.5"], strict=True)) for column in _MOVED}
        for scale, one in facts["periods"].items()
    }
    first = np.datetime64(facts["near"]["start"].removesuffix("Z"), "us")
    return LastForecast(facts["made"], int(first.astype(np.int64)), columns_NMC, periods)


def bundle(facts: Mapping[str, Any], found: Findings, outlook: Outlook) -> bytes:
    """Return a zip of the report's data: periods and next steps as CSV and Parquet, facts and card as JSON."""
    periods, near = _period_table(found), _near_table(outlook)
    files = {
        "README.txt": _README.format(
            graph=found.graph, horizon=found.request.horizon, seed=found.request.seed
        ).encode(),
        "report.json": _json(facts),
        "card.json": _json(facts["card"]),
        "periods.csv": _csv(periods),
        "periods.parquet": _parquet(periods),
        "near.csv": _csv(near),
        "near.parquet": _parquet(near),
    }
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            # Parquet is compressed already.
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".parquet") else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return sink.getvalue()


_README = """Data of a Graphtide report on {graph}.

report.json      all that the report says
card.json        the card of the model that answered; empty for a simple method
periods.*        observed and forecast days, weeks, months and years: each sample path aggregated, then its quantiles
near.*           the next steps one by one
above            share of the sample paths above the last whole observed period, ties as halves

Every step, as a file:
  graphtide forecast {graph} --horizon {horizon} --seed {seed} --format parquet --output steps.parquet
"""


def as_text(value: object) -> str:
    """Return facts as JSON.

    Raises:
        TypeError: something in it has no place in JSON.
    """
    return _json(value).decode()


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _times(starts_us: Times) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(starts_us.astype("datetime64[us]"), unit="s")]


def _period_table(found: Findings) -> pa.Table:
    """Return rows of each scale and column: what was observed, then what is forecast."""
    parts = [_periods_of(scale, found.observed[scale], fan) for scale, fan in found.ahead.items()]
    return pa.concat_tables(parts) if parts else _PERIOD_SCHEMA.empty_table()


def _periods_of(scale: Scale, seen: Periods, fan: PeriodFan) -> pa.Table:
    rows, columns = len(seen) + len(fan), len(COLUMNS)
    values = np.full((columns, rows, len(_NUMBERS) + 2), np.nan)
    values[:, : len(seen), 0] = seen.values.T
    values[:, len(seen) :, 1:-1] = _columns(fan).swapaxes(0, 1)
    values[:, len(seen) :, -1] = fan.above.T
    flat = values.reshape(columns * rows, -1)
    cells: list[Any] = [
        np.full(columns * rows, str(scale)),
        np.tile([*_times(seen.start_us), *_times(fan.start_us)], columns),
        np.repeat(COLUMNS, rows),
        np.repeat([str(rule_of(column)) for column in COLUMNS], rows),
    ]
    numbers = [
        pa.array(flat[:, place], field.type, from_pandas=True)
        for place, field in enumerate(list(_PERIOD_SCHEMA)[len(cells) :])
    ]
    return pa.table([*(pa.array(texts, pa.string()) for texts in cells), *numbers], schema=_PERIOD_SCHEMA)


def _near_table(outlook: Outlook) -> pa.Table:
    near = outlook.near()
    columns = [near.mean.ravel(), *(near.quantiles[..., c].ravel() for c in range(len(SHOWN_LEVELS)))]
    return pa.table(
        {
            "step_start": pa.array(np.repeat(_times(near.start_us), len(METRIC_NAMES)), pa.string()),
            "metric": pa.array(np.tile(METRIC_NAMES, len(near)), pa.string()),
            **{name: pa.array(column, pa.float32()) for name, column in zip(_NUMBERS, columns, strict=True)},
        }
    )


def _csv(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
    return ",".join(table.column_names).encode() + b"\n" + sink.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
