"""Smaller forms of a trained forecaster, and what a backtest says of them before they are used.

A form is made of the full model: pruned or distilled and trained on, then stored in fewer bits. It is written, read
back and compared with the full model on steps that neither of them learned from: what is judged is what will run.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forecasting.backtest import backtest
from forecasting.backtests.plan import spread_windows
from forecasting.backtests.ratios import COUNT_METRICS
from forecasting.training import forecaster_of
from infra.errors import ModelError, UsageError
from models import checkpoint
from models.checkpoint import Checkpoint
from models.contract import FloatArray, History, Model
from models.distillation import student_of
from models.optimisation import TrainingConfig, TrainingProgress
from models.pruning import OnWeighed, n_parameters, prune
from models.quantisation import encode, n_bytes
from models.ranks import structure_json
from models.sampling import Sampler, TrainingSeries, validated_steps
from models.scoring import bucket_name, geometric_mean_ratio
from models.seasons import season_steps
from models.training import TrainedForecaster, train_series

# Batches of the training part on which parts of a net are weighed.
_WEIGHED_BATCHES = 32
_SCORES = ("wql", "mase")

OnTraining = Callable[[TrainingProgress], None]
# Told the windows that are done and to do.
OnWindows = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Method:
    """How a model is made smaller.

    Attributes:
        precision: what its weights are stored and run in.
        prune_share: share of the parameters that is pruned; 0 for none.
        distil: whether a student of half the layers takes its place.

    Raises:
        UsageError: it changes nothing, or asks for two smaller architectures at once.
    """

    precision: str = "fp32"
    prune_share: float = 0.0
    distil: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.prune_share < 1:
            raise UsageError(f"the share to prune must be at least 0 and below 1, not {self.prune_share:g}")
        if self.distil and self.prune_share:
            raise UsageError("a model is pruned or distilled, not both", fix="leave out --prune or --distil")
        if self.precision == "fp32" and not self.trains:
            raise UsageError("nothing is to be made smaller", fix="give --weights, --prune or --distil")

    @property
    def trains(self) -> bool:
        """Whether it makes another architecture, which is trained on."""
        return self.distil or self.prune_share > 0

    def __str__(self) -> str:
        """Return what is done, in words."""
        parts = [f"pruned by {self.prune_share:.0%}"] if self.prune_share else []
        parts += ["distilled"] if self.distil else []
        parts += [self.precision] if self.precision != "fp32" else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Judged:
    """Steps on which forms of a model are compared.

    Attributes:
        history: a graph.
        begin: how many of its steps were learned from; the windows lie behind them.
    """

    history: History
    begin: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a backtest says of a smaller form against the full model.

    Attributes:
        wql_ratio, mase_ratio: geometric means over count metrics, then graphs; below 1 the smaller form is better; NaN
            where every observation or score was zero.
        graphs, windows: what they were taken over.
        tolerance: by how much weighted quantile loss may be higher.
    """

    wql_ratio: float
    mase_ratio: float
    graphs: int
    windows: int
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the smaller form costs no accuracy to speak of; where nothing could be compared it does not hold."""
        return self.wql_ratio <= 1 + self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for a card; a ratio that is not defined is null."""
        fields = {name: None if math.isnan(value) else value for name, value in asdict(self).items()}
        return {**fields, "holds": self.holds}


def judged_parts(series: Sequence[TrainingSeries]) -> list[Judged]:
    """Return the validation parts of those series that have one."""
    return [Judged(one.history, len(one.history) - validated_steps(one)) for one in series if one.validation_share > 0]


def scores(
    model: Model[Any], parts: Sequence[Judged], *, most: int, seed: int = 0, on_windows: OnWindows | None = None
) -> tuple[list[dict[str, FloatArray]], int]:
    """Return by graph the scores [M] of the count metrics over windows of a season, and the number of windows.

    Args:
        model: what forecasts.
        parts: what it is scored on.
        most: windows of a graph.
        seed: of the sample paths of totals.
        on_windows: told of the windows.
    """
    plans = []
    for part in parts:
        tested = len(part.history) - part.begin
        window = min(season_steps(part.history.step_us), tested)
        plans.append((part, window, *spread_windows(tested, window, most)))
    total, done = sum(origins for _, _, origins, _ in plans), 0
    found = []
    for part, window, origins, stride in plans:

        def report(windows: int, _of: int, before: int = done) -> None:
            if on_windows is not None:
                on_windows(before + windows, total)

        result = backtest(
            part.history,
            [model],
            horizons=(window,),
            origins=origins,
            stride=stride,
            test_start=part.begin,
            seed=seed,
            on_progress=report,
        )
        done += origins
        rows = {row.metric: row for row in result.rows if row.bucket == bucket_name(1, window)}
        found.append({score: np.array([getattr(rows[m], score) for m in COUNT_METRICS]) for score in _SCORES})
    return found, total


def verdict(
    full: Sequence[Mapping[str, FloatArray]],
    smaller: Sequence[Mapping[str, FloatArray]],
    windows: int,
    tolerance: float,
) -> Verdict:
    """Return what scores of `scores` say of a smaller form against the full model."""
    means, graphs = {}, 0
    for score in _SCORES:
        pairs = [geometric_mean_ratio(ours[score], theirs[score]) for ours, theirs in zip(smaller, full, strict=True)]
        logs = [math.log(ratio) for ratio, count in pairs if count]
        means[score] = math.exp(sum(logs) / len(logs)) if logs else math.nan
        graphs = max(graphs, len(logs))
    return Verdict(means["wql"], means["mase"], graphs, windows, tolerance)


def shrunk(
    full: Checkpoint,
    method: Method,
    series: Sequence[TrainingSeries],
    config: TrainingConfig,
    *,
    resume_from: Path | None = None,
    on_weighed: OnWeighed | None = None,
    on_training: OnTraining | None = None,
) -> TrainedForecaster:
    """Return a smaller architecture that was made of a model and trained on.

    Args:
        full: the model.
        method: one that `trains`.
        series: what it is trained on; one of them at least has a validation part.
        config: how.
        resume_from: a file that the training goes on from if it was killed.
        on_weighed: told of the smaller architectures that were tried, before one is trained.
        on_training: told of it.

    Raises:
        ModelError: the model cannot be made that much smaller, or the training fails.
    """
    sampler = Sampler(
        series,
        reach_steps=full.net.config.reach_steps,
        tokens_per_batch=config.tokens_per_batch,
        seed=config.seed,
    )
    batches = [sampler.draw(number) for number in range(_WEIGHED_BATCHES)]
    start = (
        student_of(full.net, batches, on_weighed)
        if method.distil
        else prune(full.net, method.prune_share, batches, on_weighed)
    )
    return train_series(
        series,
        start.config,
        config,
        start=start,
        teachers=[full.net] if method.distil else [],
        resume_from=resume_from,
        on_progress=on_training,
    )


def made(
    full: Checkpoint,
    method: Method,
    trained: TrainedForecaster | None,
    folder: Path,
    *,
    seen: Mapping[str, Any] | None = None,
    **more: Any,
) -> Checkpoint:
    """Write a smaller form of a model and read it back, as it will run.

    Args:
        full: the model.
        method: how it is made smaller.
        trained: of `shrunk`, for a method that trains.
        folder: where to.
        seen: what the card says about the data that it was trained on; None for that of the full model.
        more: what else its card says of the compression.

    Raises:
        ModelError: it cannot be written, or the model is a smaller form already.
    """
    if "compression" in full.card:
        raise ModelError(
            f"the model {full.digest[:16]} is a smaller form already: {full.card['compression']['method']}",
            fix="compress the full model that it was made of",
        )
    net = full.net if trained is None else trained.net
    card = dict(full.card)
    if trained is not None:
        # Those were of other weights.
        card.pop("calibrations", None)
        card |= {
            **(seen or {}),
            "scores": trained.scores(),
            "ranks": structure_json(trained.ranks),
            "calibration": trained.calibration.to_json(),
        }
    card["compression"] = {
        "method": str(method),
        "parent": full.digest,
        "parameters": [n_parameters(full.net.config), n_parameters(net.config)],
        "bytes": [n_bytes(encode(full.net, "fp32")), n_bytes(encode(net, method.precision))],
        **more,
    }
    checkpoint.save(folder, net, card, precision=method.precision)
    found = checkpoint.load(folder)
    assert found is not None
    return found


def compress(
    full: Checkpoint,
    method: Method,
    trained: TrainedForecaster | None,
    parts: Sequence[Judged],
    *,
    tolerance: float,
    most_windows: int,
    seed: int = 0,
    seen: Mapping[str, Any] | None = None,
    on_windows: OnWindows | None = None,
) -> tuple[Verdict, Callable[[Path], Checkpoint]]:
    """Make a smaller form of a model and judge it; nothing is kept yet.

    Args:
        full: the model.
        method: how it is made smaller.
        trained: of `shrunk`, for a method that trains.
        parts: what it is compared with the model on.
        tolerance: by how much its weighted quantile loss may be higher.
        most_windows: of each part.
        seed: of the sample paths of totals.
        seen: what the card says about the data that `trained` was trained on; None for that of the full model.
        on_windows: told of the windows of both models.

    Returns:
        What the backtest says, and what writes the smaller form to a folder, with that on its card.

    Raises:
        ModelError: the model is a smaller form already, or there is no room to write it.
    """
    with tempfile.TemporaryDirectory(prefix="graphtide-compress-") as folder:
        smaller = made(full, method, trained, Path(folder))
    found = []
    windows = 0
    for number, one in enumerate((full, smaller)):

        def report(done: int, total: int, before: int = number) -> None:
            if on_windows is not None:
                on_windows(before * total + done, 2 * total)

        by_graph, windows = scores(forecaster_of(one), parts, most=most_windows, seed=seed, on_windows=report)
        found.append(by_graph)
    said = verdict(found[0], found[1], windows, tolerance)
    return said, lambda target: made(full, method, trained, target, seen=seen, backtest=said.to_json())
