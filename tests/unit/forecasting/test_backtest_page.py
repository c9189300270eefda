"""The page of a backtest holds what was found, and asks nothing from any host."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forecasting.backtest import backtest
from forecasting.backtests.ratios import COUNT_METRICS, LeftOut
from forecasting.cli.backtest_tables import show
from forecasting.evaluation import Evaluation, evaluate
from forecasting.reports.backtest_page import render
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from infra.settings import Settings
from infra.steps import DAY_US
from models.baselines import Drift, Persistence, SeasonalNaive
from models.contract import FloatArray, ForecastChunk, History
from tests.unit.forecasting.forecast_cases import some_history


class Clairvoyant:
    """Stands in for a forecaster: it knows the series but for an error, which is hardly ever 0: that has no ratio."""

    def __init__(self, name: str, history: History, error: float) -> None:
        self.name, self._values = name, history.values + error

    def start(self, step_us: int, start_us: int) -> int:
        return 0

    def update(self, state: int, values: FloatArray) -> int:
        return state + len(values)

    def rollout(
        self, state: int, horizon_steps: int, *, chunk_steps: int = 1024, seed: int = 0
    ) -> Iterator[ForecastChunk]:
        mean = self._values[state : state + horizon_steps]
        yield ForecastChunk(0, mean, np.repeat(mean[..., None], len(QUANTILE_LEVELS), axis=-1))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    # A floor stands in for the forecaster: the page treats it no differently.
    models = [Drift(), SeasonalNaive(), Persistence()]
    results = {
        graph: backtest(some_history(90, seed, DAY_US), models, horizons=(1, 14), origins=3)
        for seed, graph in enumerate(("<b>one</b>", "two"))
    }
    return Evaluation(results, {"drift": "was made up"}, ("seasonal_naive", "persistence"), (), (0, 0))


def test_the_page_holds_every_graph_and_loads_nothing(evaluation: Evaluation) -> None:
    page = render(evaluation, {graph: some_history(90, n, DAY_US) for n, graph in enumerate(evaluation.results)})
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "<b>one</b>" not in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    (ratio,) = [
        r
        for r in evaluation.summary()
        if (r.model, r.bucket, r.score, r.against) == ("drift", "1-14", "wql", "best_single_floor")
    ]
    assert f"{ratio.ratio:.3f}" in page
    # One chart of all, and of each graph calibration and three forecasts.
    assert page.count('role="img"') == 1 + 2 * 4


def test_several_graphs_have_a_summary_and_one_has_none(evaluation: Evaluation) -> None:
    found = evaluation.to_json()
    assert [graph["graph"] for graph in found["graphs"]] == ["<b>one</b>", "two"]
    assert {r["n_graphs"] for r in found["summary"]["ratios"] if r["model"] == "persistence"} == {2}
    one = Evaluation({"two": evaluation.results["two"]}, evaluation.forecasters, evaluation.floors, (), (0, 0))
    assert one.to_json()["graph"] == "two"


def test_a_second_forecaster_is_beside_the_first_and_never_a_floor(capsys: pytest.CaptureFixture[str]) -> None:
    history = some_history(90, 1, DAY_US)
    # Both would be the best floor of every metric.
    ours = [Clairvoyant("mamba2", history, 2e-4), Clairvoyant("mamba2-general", history, 1e-4)]
    found = replace(
        backtest(history, [*ours, SeasonalNaive(), Persistence()], horizons=(1, 14), origins=3),
        notes=["no model was trained: <a> week is too short"],
    )
    made = {"mamba2": "was trained", "mamba2-general": "is as it comes"}
    one = Evaluation({"g": found}, made, ("seasonal_naive", "persistence"), (), (0, 0))
    assert found.floors == ["seasonal_naive", "persistence"]
    assert {ratio.floor for ratio in found.ratios} == {"", "seasonal_naive", "persistence"}
    page = render(one, {"g": history})
    assert "<h1>Backtest of mamba2 and mamba2-general beside 2 floors</h1>" in page
    assert "mamba2 was trained. mamba2-general is as it comes. The floors" in page
    assert "Note: no model was trained: &lt;a&gt; week is too short." in page
    assert '<tr><th scope="row">mamba2-general</th><td>1-14</td>' in page
    rows = re.findall(r'<tr><th scope="row">[^<]+</th>(?:<td[^>]*>[^<]*</td>\s*){11}<td>([a-z_]*)</td></tr>', page)
    assert len(rows) == len(METRIC_NAMES)
    assert set(rows) <= {"seasonal_naive", "persistence", ""}
    show(one)
    said = capsys.readouterr().out
    assert "mamba2 was trained; mamba2-general is as it comes" in said
    assert "note: no model was trained" in said
    by_metric, means = (
        said.split("geometric means over count metrics, steps 1-14 ahead")[0],
        said.split("1-14 ahead")[2],
    )
    assert not re.search(r" mamba2-general *$", by_metric, re.MULTILINE)
    assert re.search(r"^ mamba2-general +0\.000", means, re.MULTILINE)


def test_a_graph_without_a_training_stands_beside_one_with(capsys: pytest.CaptureFixture[str]) -> None:
    histories = {graph: some_history(90, seed, DAY_US) for seed, graph in enumerate(("old", "young"))}
    floors = [SeasonalNaive(), Persistence()]
    models = {
        graph: [Clairvoyant(name, histories[graph], 1e-4) for name in names]
        for graph, names in (("old", ("mamba2", "mamba2-general")), ("young", ("mamba2-general",)))
    }
    results = {
        graph: backtest(histories[graph], [*models[graph], *floors], horizons=(1, 14), origins=3) for graph in histories
    }
    both = Evaluation(results, {"mamba2": "", "mamba2-general": ""}, tuple(floor.name for floor in floors), (), (0, 0))
    assert both.forecasters_of("young") == ["mamba2-general"]
    counts = {ratio.model: ratio.n_graphs for ratio in both.summary() if ratio.score == "wql"}
    assert (counts["mamba2"], counts["persistence"]) == (1, 2)
    show(both)
    said = capsys.readouterr().out
    assert re.search(r"^ old +mamba2 .*\n old +mamba2-general .*\n young +mamba2-general ", said, re.MULTILINE)
    assert re.search(r"^ mamba2 .* 1 *$", said, re.MULTILINE)
    page = render(both, histories)
    assert "the forecast of mamba2-general from the last origin" in page
    assert "Note: mamba2 was scored on 1 of 2 graphs" in page
    assert "mamba2-general was scored on" not in page


def test_a_season_before_the_only_window_is_enough_without_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    histories = {"g": some_history(14, step_us=DAY_US)}
    settings = Settings(models={"directory": tmp_path}, backtest={"workers": 1})  # type: ignore[arg-type]
    found = evaluate(histories, settings)
    notes = found.results["g"].notes
    assert [note.split(":")[0] for note in notes] == ["no model was trained", "MASE is undefined"]
    assert found.forecasters_of("g") == ["mamba2-general"]
    assert all(math.isnan(row.mase) for row in found.results["g"].rows)
    assert not any(math.isnan(row.wql) for row in found.results["g"].rows if row.metric == "events")
    json.dumps(found.to_json(), allow_nan=False)
    page = render(found, histories)
    show(found)
    said = capsys.readouterr().out
    for note in notes:
        assert note in page
        assert note in said


def test_page_and_table_name_what_the_means_leave_out(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    name, result = "two", evaluation.results["two"]
    missed = LeftOut("drift", "1-14", "wql", "best_floor", ("new_nodes",))
    one = Evaluation({name: replace(result, left_out=[missed])}, evaluation.forecasters, evaluation.floors, (), (0, 0))
    note = f"1 of {len(COUNT_METRICS)} count metrics are not in every geometric mean"
    assert note in render(one, {name: some_history(90, 1, DAY_US)})
    whole = Evaluation({name: replace(result, left_out=[])}, evaluation.forecasters, evaluation.floors, (), (0, 0))
    assert note not in render(whole, {name: some_history(90, 1, DAY_US)})
    show(one)
    assert "new_nodes (steps 1-14)" in " ".join(capsys.readouterr().out.split())
    two = Evaluation({name: one.results[name], "other": result}, evaluation.forecasters, evaluation.floors, (), (0, 0))
    show(two)
    assert f"two: {note}" in " ".join(capsys.readouterr().out.split())
