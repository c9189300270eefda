"""Geometric means of scores against those of the floors, over count metrics and over graphs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from infra.schema import METRICS, Kind
from models.contract import FloatArray
from models.scoring import geometric_mean_ratio

REFERENCE, BEST_FLOOR, BEST_SINGLE_FLOOR = "seasonal_naive", "best_floor", "best_single_floor"
SCORES = ("mase", "wql")
COUNT_METRICS = [metric.name for metric in METRICS if metric.kind is Kind.COUNT]


class Scored(Protocol):
    """What ratios are made of: a row of scores."""

    @property
    def metric(self) -> str: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def bucket(self) -> str: ...  # noqa: D102
    @property
    def mase(self) -> float: ...  # noqa: D102
    @property
    def wql(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Ratio:
    """Geometric mean over count metrics of a model's score over that of another; below 1 the model is better.

    Over several graphs it is the geometric mean of the graphs' own, each graph weighing the same.

    Attributes:
        score: `mase` or `wql`.
        against: `seasonal_naive`; `best_single_floor`, the one floor with the lowest geometric mean; or `best_floor`,
            picked in hindsight for each metric. Both are picked for each range of horizons and score.
        floor: which floor that is; empty where it differs by metric.
        ratio: NaN when no metric could be compared.
        n_metrics: how many metrics could be, all graphs together; the rest have an undefined or zero score.
        n_graphs: how many graphs could be.
    """

    model: str
    bucket: str
    score: str
    against: str
    floor: str
    ratio: float
    n_metrics: int
    n_graphs: int


def ratios(graphs: Sequence[Iterable[Scored]], models: Sequence[str], floors: Sequence[str]) -> list[Ratio]:
    """Return all ratios of the models.

    Args:
        graphs: the rows of each graph. All have the same floors; another model, or a range of horizons, may be of
            some alone: a graph can be too young to train on, and a day has not as many steps in each.
        models: whose ratios.
        floors: which of them are floors.
    """
    found = []
    for bucket, score, by_graph in _cases(graphs, models):
        for (against, floor), references in _references(by_graph, models, floors).items():
            for model in models:
                pairs = [
                    geometric_mean_ratio(scores[model], reference)
                    for scores, reference in zip(by_graph, references, strict=True)
                ]
                logs = [math.log(ratio) for ratio, count in pairs if count]
                ratio = math.exp(sum(logs) / len(logs)) if logs else math.nan
                n_metrics = sum(count for _, count in pairs)
                found.append(Ratio(model, bucket, score, against, floor, ratio, n_metrics, len(logs)))
    return found


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Count metrics that are not in a `Ratio` of one graph because one of the two scores is 0: it was never wrong.

    Attributes:
        model, bucket, score, against: of the ratio.
        metrics: their names, at least one.
    """

    model: str
    bucket: str
    score: str
    against: str
    metrics: tuple[str, ...]


def left_out(rows: Iterable[Scored], models: Sequence[str], floors: Sequence[str]) -> list[LeftOut]:
    """Return what is not in the ratios of one graph; arguments as for `ratios`."""
    found = []
    for bucket, score, by_graph in _cases([rows], models):
        for (against, _), (reference,) in _references(by_graph, models, floors).items():
            for model in models:
                pairs = zip(COUNT_METRICS, by_graph[0][model], reference, strict=True)
                names = tuple(name for name, *both in pairs if 0 in both and np.isfinite(both).all())
                if names:
                    found.append(LeftOut(model, bucket, score, against, names))
    return found


def left_out_note(found: Iterable[LeftOut]) -> str:
    """Return in words which metrics are left out of ratios, and at which steps ahead; nothing if none is."""
    buckets: dict[str, dict[str, None]] = {}
    for one in found:
        for metric in one.metrics:
            buckets.setdefault(metric, {})[one.bucket] = None
    if not buckets:
        return ""
    named = ", ".join(f"{metric} (steps {', '.join(buckets[metric])})" for metric in COUNT_METRICS if metric in buckets)
    return (
        f"{len(buckets)} of {len(COUNT_METRICS)} count metrics are not in every geometric mean, "
        f"as a score of 0 has no ratio: {named}"
    )


def _cases(
    graphs: Sequence[Iterable[Scored]], models: Sequence[str]
) -> Iterator[tuple[str, str, list[dict[str, FloatArray]]]]:
    """Yield each range of horizons and score, with the scores of the count metrics by graph that has it, and model."""
    tables = [{(row.metric, row.model, row.bucket): row for row in rows} for rows in graphs]
    for bucket in dict.fromkeys(bucket for table in tables for _, _, bucket in table):
        for score in SCORES:
            yield (
                bucket,
                score,
                [
                    {
                        model: np.array(
                            [getattr(table.get((metric, model, bucket)), score, math.nan) for metric in COUNT_METRICS]
                        )
                        for model in models
                    }
                    for table in tables
                    if any((COUNT_METRICS[0], model, bucket) in table for model in models)
                ],
            )


def _references(
    by_graph: Sequence[Mapping[str, FloatArray]], models: Sequence[str], floors: Sequence[str]
) -> dict[tuple[str, str], list[FloatArray]]:
    """Return by (what it is, the floor's name) its scores in each graph."""
    references = {}
    if REFERENCE in models:
        references[REFERENCE, REFERENCE] = [scores[REFERENCE] for scores in by_graph]
    if floors:
        single = best_single(by_graph, floors)
        if single is not None:
            references[BEST_SINGLE_FLOOR, single] = [scores[single] for scores in by_graph]
        references[BEST_FLOOR, ""] = [np.fmin.reduce([scores[floor] for floor in floors]) for scores in by_graph]
    return references


def best_single(by_graph: Sequence[Mapping[str, FloatArray]], floors: Sequence[str]) -> str | None:
    """Return the floor with the lowest geometric mean over graphs and metrics, of those where all have a score.

    None where there is no such metric.
    """
    sums = dict.fromkeys(floors, 0.0)
    compared = 0
    for scores in by_graph:
        table = np.stack([scores[floor] for floor in floors])
        usable = (np.isfinite(table) & (table > 0)).all(axis=0)
        if usable.any():
            compared += 1
            for floor in floors:
                sums[floor] += float(np.log(scores[floor][usable]).mean())
    return min(floors, key=sums.__getitem__) if compared else None
