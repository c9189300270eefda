"""Training and forecasting from the command line: files that programs can rely on."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from forecasting.backtests import workers
from forecasting.backtests.kept import keep
from forecasting.backtests.parts import Part
from forecasting.history import read_history
from forecasting.training import checkpoint_folder, forecaster_config, train_graph, training_config
from infra.schema import METRIC_NAMES, ORDER_CONSTRAINTS, QUANTILE_LEVELS
from infra.settings import Settings
from infra.steps import format_time
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader
from tests.conftest import Ran

Cli = Callable[..., Ran]
SMALL = {"FORECASTER__D_MODEL": "16", "FORECASTER__N_LAYERS": "1", "TRAINING__MAX_ITERATIONS": "3"}
LEVELS = [f"q{level:g}" for level in QUANTILE_LEVELS]


@pytest.fixture
def quick(clean_environment: Path, toy_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model so small, trained so shortly, that a forecast from nothing takes a second."""
    for name, value in SMALL.items():
        monkeypatch.setenv(f"GRAPHTIDE_{name}", value)
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", toy_store)


@pytest.fixture(scope="session")
def toy_model(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models with one of the graph `toy`."""
    folder = tmp_path_factory.mktemp("models")
    sections: dict[str, dict[str, str]] = {}
    for name, value in SMALL.items():
        section, key = name.lower().split("__")
        sections.setdefault(section, {})[key] = value
    settings = Settings(**sections)  # type: ignore[arg-type]
    with open_reader(toy_store) as reader:
        history = read_history(reader, "toy")
    train_graph(
        history, "toy", checkpoint_folder(folder, "toy"), forecaster_config(settings), training_config(settings)
    )
    return folder


@pytest.fixture
def trained(quick: None, toy_model: Path) -> None:
    """A copy of that model where the command line looks for it."""
    shutil.copytree(toy_model, ".graphtide/models")


@pytest.mark.usefixtures("quick")
def test_a_graph_without_a_model_is_answered_by_the_general_one(graphtide: Cli) -> None:
    first = graphtide("forecast", "toy", "--horizon", 3, "--format", "json")
    assert first.code == 0
    assert "the general one answers" in first.err
    assert not Path(".graphtide/models/toy").exists()
    assert graphtide("train", "toy").code == 0
    second = graphtide("forecast", "toy", "--horizon", 3, "--format", "json")
    assert "general" not in second.err
    assert second.out != first.out
    found = json.loads(first.out)
    assert (found["graph"], found["horizon"], found["step"], found["degraded"]) == ("toy", 3, "1h", False)
    assert found["degraded_reason"] is None
    assert (found["calibrated_until_step"], found["skill_until_step"]) == (2048, 2048)
    assert [json.loads(ran.out)["calibrated_on"] for ran in (first, second)] == ["other graphs", "this graph"]
    assert [row["metric"] for row in found["rows"]] == [*METRIC_NAMES] * 3
    table = graphtide("forecast", "toy", "--horizon", 3)
    assert "Found on this graph: intervals hold up to step" in table.err


@pytest.mark.usefixtures("trained")
def test_parquet_is_whole_sane_and_the_same_for_the_same_seed(graphtide: Cli) -> None:
    steps = 700
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        ran = graphtide(
            *("forecast", "toy", "--horizon", steps, "--format", "parquet", "-o", f"{name}.parquet", "--seed", seed)
        )
        assert ran.code == 0
        assert f"{name}.parquet" in ran.err
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()
    assert Path("a.parquet").read_bytes() != Path("c.parquet").read_bytes()
    frame = pq.read_table("a.parquet").to_pandas()
    assert list(frame.columns) == ["step_start", "metric", "mean", *LEVELS]
    assert len(frame) == steps * len(METRIC_NAMES)
    starts = frame["step_start"].unique()
    assert len(starts) == steps
    assert (np.diff(starts.astype("int64")) == 3_600_000_000).all()
    quantiles = frame[LEVELS].to_numpy()
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles >= 0).all()
    by_metric = {name: part[["mean", *LEVELS]].to_numpy() for name, part in frame.groupby("metric")}
    for smaller, larger in ORDER_CONSTRAINTS:
        assert (by_metric[smaller] <= by_metric[larger]).all(), (smaller, larger)


@pytest.mark.usefixtures("trained")
def test_memory_is_flat_in_the_horizon() -> None:
    code = (
        "import atexit, re, sys\n"
        "from pathlib import Path\n"
        # The peak of this process alone; getrusage would include that of the one that forked it.
        "peak_kb = lambda: re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "atexit.register(lambda: print(peak_kb()))\n"
        "from forecasting.cli import main\n"
        "main()\n"
    )
    peaks_mb = []
    for steps in (1024, 12_000):
        call = ("forecast", "toy", "--horizon", str(steps), "--format", "parquet", "--output", "x.parquet")
        ran = subprocess.run([sys.executable, "-c", code, *call], capture_output=True, text=True, check=True)
        peaks_mb.append(int(ran.stdout) / 1024)
        assert pq.ParquetFile("x.parquet").metadata.num_rows == steps * len(METRIC_NAMES)
    assert peaks_mb[1] < 1000
    assert peaks_mb[1] - peaks_mb[0] < 60


@pytest.mark.usefixtures("trained")
def test_chosen_metrics_and_levels(graphtide: Cli) -> None:
    ran = graphtide(
        *("forecast", "toy", "--horizon", 2, "--format", "csv"),
        *("--metrics", "new_nodes,events", "--quantiles", "0.9,0.1"),
    )
    lines = ran.out.splitlines()
    assert lines[0] == "step_start,metric,mean,q0.1,q0.9"
    assert [line.split(",")[1] for line in lines[1:]] == ["new_nodes", "events"] * 2


@pytest.mark.usefixtures("trained")
def test_table_names_step_median_and_interval(graphtide: Cli) -> None:
    ran = graphtide("forecast", "toy", "--horizon", 24)
    assert "median [80 % interval]" in ran.out
    assert "+24" in ran.out
    assert all(name in ran.out for name in METRIC_NAMES)


@pytest.mark.usefixtures("quick")
def test_train_keeps_a_checkpoint_with_its_card(graphtide: Cli) -> None:
    ran = graphtide("train", "toy", "--seed", 3, "--json")
    assert ran.code == 0
    (card,) = json.loads(ran.out)
    assert card["seed"] == 3
    assert card["data"][0]["graph"] == "toy"
    assert json.loads(Path(".graphtide/models/toy/card.json").read_text()) == card
    findings = json.loads(graphtide("doctor", "--json").out)["findings"]
    assert any(finding["name"] == "models" and "toy" in finding["found"] for finding in findings)


@pytest.mark.usefixtures("quick")
def test_graph_too_short_to_train_on(graphtide: Cli, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/short.db"
    ingest(SimulatedSource(SimulationConfig(years=0.005), graph="short"), url, IngestOptions())
    ran = graphtide("forecast", "short", "--store", url, "--horizon", 3, "--format", "json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert found["degraded"]
    assert "too few for a model" in found["degraded_reason"]
    assert (found["calibrated_until_step"], found["skill_until_step"]) == (None, None)
    assert found["calibrated_on"] is None
    assert "too few for a model" in ran.err
    refused = graphtide("train", "short", "--store", url)
    assert refused.code == 1
    assert "too short to train on" in refused.err
    assert "at:  graph short" in refused.err
    assert not Path(".graphtide/models").exists()


@pytest.mark.usefixtures("trained")
def test_checkpoint_of_another_step_size(graphtide: Cli, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/quarter.db"
    source = SimulatedSource(SimulationConfig(years=0.005), graph="toy")
    ingest(source, url, IngestOptions(step_us=900_000_000))
    ran = graphtide("forecast", "toy", "--store", url, "--format", "csv", "-o", "x.csv")
    assert ran.code == 1
    assert "steps of 1h" in ran.err
    assert "steps of 15m" in ran.err
    assert "graphtide train toy" in ran.err
    assert not Path("x.csv").exists()


@pytest.mark.usefixtures("trained")
def test_damaged_weights_are_refused(graphtide: Cli) -> None:
    (weights,) = Path(".graphtide/models/toy").glob("weights-*")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ran = graphtide("forecast", "toy", "--format", "csv", "-o", "x.csv")
    assert ran.code == 1
    assert weights.name in ran.err
    assert "graphtide train" in ran.err
    assert not Path("x.csv").exists()


@pytest.mark.usefixtures("quick")
def test_backtest_scores_the_model_beside_every_floor(graphtide: Cli) -> None:
    call = ("backtest", "toy", "--horizons", "1,24", "--origins", 3)
    ran = graphtide(*call, "--json", "--output", "scores.json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert json.loads(Path("scores.json").read_text()) == found
    assert found["graph"] == "toy"
    assert (found["protocol"]["origins"], found["protocol"]["horizons"]) == (3, [1, 24])
    models = {row["model"] for row in found["rows"]}
    assert {"mamba2", "mamba2-general", "seasonal_naive", "profile_level", "persistence"} <= models
    assert set(found["floors"]) == models - {"mamba2", "mamba2-general"}
    # The one that comes with the package, whatever was trained.
    assert found["timings"].keys() == models
    assert {row["metric"] for row in found["rows"]} == set(METRIC_NAMES)
    for row in found["rows"]:
        assert {"metric", "model", "bucket", "mase", "wql", "coverage_80", "coverage_95", "n"} <= set(row)
    # The model of the backtest saw nothing behind the first origin, and is not the one that forecasts.
    card = json.loads(Path(".graphtide/models/.backtest/toy/card.json").read_text())
    assert card["data"][0]["until"] == found["protocol"]["first_origin"]
    assert not Path(".graphtide/models/toy").exists()
    table = graphtide(*call)
    assert "Training" not in table.err
    assert "steps 1-24 ahead" in table.out
    assert "mamba2-general is the model that comes with the package" in table.out
    means = table.out.split("geometric means over count metrics, steps 1-24 ahead")[1]
    assert re.search(r"^ mamba2 .*\n mamba2-general .*\n seasonal_naive ", means, re.MULTILINE)


@pytest.mark.usefixtures("quick")
def test_backtest_of_all_graphs_leaves_out_those_that_are_too_short(graphtide: Cli) -> None:
    url = "sqlite:///both.db"
    Path("log.ndjson").write_text('{"src": "a", "dst": "b", "ts": 1767225600}\n')
    assert graphtide("ingest", "log.ndjson", "--graph", "forum", "--store", url).code == 0
    call = ("backtest", "--store", url, "--horizons", "1,24", "--origins", 3, "--json")
    none = graphtide(*call, "--all")
    assert none.code == 2
    assert "no graph of the store is long enough to backtest" in none.err
    network = SimulationConfig(years=0.25, events_per_hour=4.0, initial_users=40, communities=4)
    ingest(SimulatedSource(network, graph="toy"), url, IngestOptions())
    ran = graphtide(*call, "--all")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["graph"] == "toy"
    assert "forum: left out: 3 windows of 24 steps, 65 apart, leave 0 of 1 steps" in ran.err
    named = graphtide(*call, "forum", "toy")
    assert named.code == 2
    assert "1 steps of graph forum to forecast from without a training, and 168 are needed" in named.err


@pytest.mark.usefixtures("quick")
def test_backtest_of_a_graph_too_young_to_train_on(graphtide: Cli) -> None:
    url = "sqlite:///young.db"
    ingest(SimulatedSource(SimulationConfig(years=0.045), graph="young"), url, IngestOptions())
    call = ("backtest", "young", "--store", url)
    ran = graphtide(*call, "--json", "--html", "page.html")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    models = {row["model"] for row in found["rows"]}
    assert "mamba2-general" in models
    assert "mamba2" not in models
    (note,) = found["notes"]
    assert re.fullmatch(r"no model was trained: \d+ of \d+ steps lie .* needs 672; ingest more history", note)
    assert f"Note: {note}." in Path("page.html").read_text()
    table = graphtide(*call)
    assert note in table.out
    assert "mamba2 was trained" not in table.out
    assert not Path(".graphtide/models/.backtest/young").exists()


@pytest.mark.usefixtures("quick")
def test_backtest_that_was_ended_goes_on_though_the_graph_grew(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "sqlite:///live.db"
    network = SimulationConfig(years=0.25, events_per_hour=4.0, initial_users=40, communities=4)
    ingest(SimulatedSource(network, graph="live"), url, IngestOptions())
    call = ("backtest", "live", "--store", url, "--horizons", "1,24", "--origins", 2, "--workers", 1, "--json")
    kept = 0

    def keep_some(path: Path, part: Part) -> None:
        nonlocal kept
        kept += 1
        if kept == 4:
            raise KeyboardInterrupt
        keep(path, part)

    with monkeypatch.context() as patched:
        patched.setattr(workers, "keep", keep_some)
        ended = graphtide(*call)
    assert ended.code == 130
    assert "--restart" in ended.err
    with open_reader(url) as reader:
        last = read_history(reader, "live")
    later = format_time(last.start_us + (len(last) + 9) * last.step_us)
    Path("more.ndjson").write_text(json.dumps({"src": "a", "dst": "b", "ts": later}) + "\n")
    assert graphtide("ingest", "more.ndjson", "--graph", "live", "--store", url).code == 0

    shutil.copytree(".graphtide", "kept")
    ran = graphtide(*call)
    assert ran.code == 0, ran.err
    until = json.loads(ran.out)["protocol"]["until"]
    assert until == format_time(last.start_us + len(last) * last.step_us)
    assert f"scores until {until}; --restart begins with the newest step (10 more)" in ran.err
    assert "3 of 14 forecasts were kept" in ran.err
    assert "Training on" not in ran.err
    # That one has ended, so the next begins with the newest steps.
    after = graphtide(*call)
    # So does one that was ended, if it is told to.
    shutil.rmtree(".graphtide")
    shutil.move("kept", ".graphtide")
    anew = graphtide(*call, "--restart")
    for newest in (after, anew):
        assert newest.code == 0, newest.err
        assert "goes on" not in newest.err
        assert json.loads(newest.out)["protocol"]["steps"] == len(last) + 10


@pytest.mark.usefixtures("quick")
def test_backtest_longer_than_the_history(graphtide: Cli) -> None:
    ran = graphtide("backtest", "toy", "--horizons", "36500")
    assert ran.code == 2
    assert "shorter --horizons" in ran.err
    many = graphtide("backtest", "toy", "--horizons", "24", "--origins", "1000")
    assert many.code == 2
    assert re.search(r"take at most \d+ --origins", many.err)
    assert not Path(".graphtide").exists()
    for horizons in ("0", "1,x"):
        wrong = graphtide("backtest", "toy", f"--horizons={horizons}")
        assert wrong.code == 2
        assert "--horizons" in wrong.err


def test_shorter_horizons_are_advised_only_where_they_help(graphtide: Cli) -> None:
    Path("two.txt").write_text("a b 1600000000\nb c 1600010000\n")
    assert graphtide("ingest", "two.txt", "--graph", "young").code == 0
    ran = graphtide("backtest", "young", "--horizons", "1")
    assert ran.code == 2
    assert "fix: ingest more history" in ran.err


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("flag", ["--output", "--html"])
def test_backtest_whose_scores_could_not_be_written_does_not_begin(graphtide: Cli, flag: str) -> None:
    Path("file").write_text("in the way")
    ran = graphtide("backtest", "toy", "--horizons", "1", flag, "file/scores")
    assert ran.code == 1
    assert "cannot write file/scores" in ran.err
    assert not Path(".graphtide").exists()


@pytest.mark.usefixtures("trained")
def test_an_unknown_backend_is_refused_before_anything_runs(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "abacus")
    ran = graphtide("forecast", "toy", "--horizon", 3)
    assert ran.code == 2
    assert "abacus" in ran.err
    assert "Traceback" not in ran.err
