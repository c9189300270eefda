"""What is said of smaller forms: ratios against the full model, and that where nothing was compared nothing holds."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from forecasting.backtests.plan import spread_windows
from forecasting.backtests.ratios import COUNT_METRICS
from forecasting.compression import Judged, Method, compress, judged_parts, made, scores, verdict
from forecasting.forms import form_of, full_model, use_full, use_new, use_smaller
from forecasting.training import forecaster_of, kept_training, train_graph
from infra.errors import ModelError, UsageError
from infra.steps import DAY_US
from models import checkpoint
from models.calibration import Calibration
from models.forecaster import ForecasterConfig, ForecasterNet
from models.optimisation import TrainingConfig
from models.ranks import default_structure, structure_json
from models.sampling import TrainingSeries
from tests.unit.forecasting.forecast_cases import some_history

HISTORY = some_history(120, step_us=DAY_US)
SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16)


@pytest.fixture
def full(tmp_path: Path) -> checkpoint.Checkpoint:
    card = {
        "name": "mamba2",
        "season_steps": 7,
        "ranks": structure_json(default_structure(7)),
        "calibration": Calibration.none().to_json(),
    }
    return checkpoint.save(tmp_path / "full", ForecasterNet(SMALL, seed=3), card)


def scored(*by_graph: float) -> list[dict[str, np.ndarray]]:
    return [{"wql": np.full(len(COUNT_METRICS), value), "mase": np.full(len(COUNT_METRICS), 1.0)} for value in by_graph]


def test_ratios_are_geometric_means_over_metrics_then_graphs() -> None:
    said = verdict(scored(1.0, 2.0), scored(1.01, 2.0), 7, tolerance=0.005)
    assert said.wql_ratio == pytest.approx(math.sqrt(1.01))
    assert (said.mase_ratio, said.graphs, said.windows, said.holds) == (1.0, 2, 7, True)
    assert not verdict(scored(1.0), scored(1.0051), 1, tolerance=0.005).holds
    assert verdict(scored(1.0), scored(0.9), 1, tolerance=0.0).holds
    # A metric that is never forecast wrong says nothing.
    assert verdict(scored(0.0, 1.0), scored(5.0, 1.0), 1, tolerance=0.005).wql_ratio == 1.0


@pytest.mark.parametrize("nothing", [0.0, math.nan])
def test_where_nothing_could_be_compared_a_form_does_not_hold(nothing: float) -> None:
    said = verdict(scored(nothing), scored(nothing), 1, tolerance=0.005)
    assert math.isnan(said.wql_ratio)
    assert not said.holds
    card = {"compression": {"method": "int8", "backtest": said.to_json()}}
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert "could not be compared" in str(form_of(card))


def test_a_form_is_judged_behind_what_was_learned_from() -> None:
    series = [TrainingSeries(HISTORY, validation_share=0.2), TrainingSeries(HISTORY)]
    assert [(part.begin, len(part.history)) for part in judged_parts(series)] == [(96, 120)]


@pytest.mark.parametrize(
    ("tested", "window", "most", "spread"), [(24, 7, 24, (3, 8)), (24, 7, 1, (1, 7)), (5, 5, 9, (1, 5))]
)
def test_windows_are_spread_over_all_that_is_tested(
    tested: int, window: int, most: int, spread: tuple[int, int]
) -> None:
    origins, stride = spread_windows(tested, window, most)
    assert (origins, stride) == spread
    assert stride >= window
    assert (origins - 1) * stride + window <= tested


def test_a_rounded_form_is_judged_as_it_will_run_and_written_with_what_was_found(
    full: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    said, write = compress(
        full,
        Method(precision="int8"),
        None,
        [Judged(HISTORY, 96)],
        tolerance=0.005,
        most_windows=2,
        on_windows=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # Rounding is no rounding error: something was really changed.
    assert said.wql_ratio != 1.0
    assert abs(said.wql_ratio - 1) < 0.01
    form = write(tmp_path / "small")
    assert form.card["compression"]["backtest"] == said.to_json()
    assert form.card["compression"]["parent"] == full.digest
    assert form_of(form.card) == f"int8, weighted quantile loss {said.wql_ratio:.4f} of the full model's"
    assert form_of(full.card) is None
    with pytest.raises(ModelError, match="smaller form already"):
        made(form, Method(precision="bf16"), None, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_model_that_was_trained_meanwhile_is_not_replaced(full: checkpoint.Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    trained = use_new(folder, ForecasterNet(SMALL, seed=4), full.card)
    with pytest.raises(ModelError, match="was replaced"):
        use_smaller(folder, full, lambda target: made(full, Method(precision="int8"), None, target))
    answers = checkpoint.load(folder)
    assert answers is not None
    assert answers.digest == trained.digest


def test_a_form_whose_weights_are_damaged_gives_way_to_its_full_model(
    full: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "full"
    form = use_smaller(folder, full, lambda target: made(full, Method(precision="int8"), None, target))
    (folder / form.card["weights"]).write_bytes(b"")
    found = full_model(folder)
    assert found is not None
    assert found.digest == full.digest
    answers = use_full(folder)
    assert answers is not None
    assert (answers.digest, checkpoint.read_card(folder)) == (full.digest, full.card)


def test_a_form_is_not_what_the_training_made_that_its_full_model_is_of(tmp_path: Path) -> None:
    config = TrainingConfig(max_iterations=1, tokens_per_batch=64)
    full = train_graph(HISTORY, "town", tmp_path, SMALL, config)
    same = (tmp_path, HISTORY, "town", SMALL, config, None)
    kept = kept_training(*same)
    assert kept is not None
    assert kept.digest == full.digest
    use_smaller(tmp_path, full, lambda target: made(full, Method(precision="int8"), None, target))
    assert kept_training(*same) is None


def test_scores_are_those_of_count_metrics_by_graph(full: checkpoint.Checkpoint) -> None:
    found, windows = scores(forecaster_of(full), [Judged(HISTORY, 96), Judged(HISTORY, 110)], most=3)
    assert windows == 3 + 1
    assert [{name: len(values) for name, values in one.items()} for one in found] == [
        {"wql": len(COUNT_METRICS), "mase": len(COUNT_METRICS)}
    ] * 2


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({}, "nothing is to be made smaller"),
        ({"distil": True, "prune_share": 0.5}, "not both"),
        ({"prune_share": 1.0}, "below 1"),
        ({"prune_share": -0.1}, "at least 0"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(method: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Method(**method)  # type: ignore[arg-type]


def test_methods_say_what_they_do() -> None:
    assert str(Method(precision="int8", prune_share=0.5)) == "pruned by 50%, int8"
    assert str(Method(distil=True)) == "distilled"
