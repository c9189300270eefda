"""The page of a backtest holds what was found, and asks nothing from any host."""

import re
from dataclasses import replace

import pytest
from forecast_cases import some_history

from forecasting.backtest import backtest
from forecasting.backtests.ratios import COUNT_METRICS, LeftOut
from forecasting.cli.backtest_tables import show
from forecasting.evaluation import Evaluation
from forecasting.reports.backtest_page import render
from infra.steps import DAY_US
from models.baselines import Drift, Persistence, SeasonalNaive


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    # A floor stands in for the forecaster: the page treats it no differently.
    models = [Drift(), SeasonalNaive(), Persistence()]
    results = {
        graph: backtest(some_history(90, seed, DAY_US), models, horizons=(1, 14), origins=3)
        for seed, graph in enumerate(("<b>one</b>", "two"))
    }
    return Evaluation(results, "drift", ("seasonal_naive", "persistence"), (), (0, 0))


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
    one = Evaluation({"two": evaluation.results["two"]}, "drift", evaluation.floors, (), (0, 0))
    assert one.to_json()["graph"] == "two"


def test_page_and_table_name_what_the_means_leave_out(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    name, result = "two", evaluation.results["two"]
    missed = LeftOut("drift", "1-14", "wql", "best_floor", ("new_nodes",))
    one = Evaluation({name: replace(result, left_out=[missed])}, "drift", evaluation.floors, (), (0, 0))
    note = f"1 of {len(COUNT_METRICS)} count metrics are not in every geometric mean"
    assert note in render(one, {name: some_history(90, 1, DAY_US)})
    whole = Evaluation({name: replace(result, left_out=[])}, "drift", evaluation.floors, (), (0, 0))
    assert note not in render(whole, {name: some_history(90, 1, DAY_US)})
    show(one)
    assert "new_nodes (steps 1-14)" in " ".join(capsys.readouterr().out.split())
    two = Evaluation({name: one.results[name], "other": result}, "drift", evaluation.floors, (), (0, 0))
    show(two)
    assert f"two: {note}" in " ".join(capsys.readouterr().out.split())
