"""The demo: from nothing to a page, a second time without training, and what it says of wrong calls."""

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.schema import METRIC_NAMES
from stream.store import open_reader
from tests.conftest import Ran

Cli = Callable[..., Ran]
FAR_STEPS = 1500
SMALL = {"FORECASTER__D_MODEL": "16", "FORECASTER__N_LAYERS": "1", "TRAINING__MAX_ITERATIONS": "3"}


@pytest.fixture
def small(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return the command line with a small model, few iterations, fewer forecasts scored and a shorter long one."""
    for name, value in SMALL.items():
        monkeypatch.setenv(f"GRAPHTIDE_{name}", value)
    monkeypatch.setattr("forecasting.demo.FAR_STEPS", FAR_STEPS)
    monkeypatch.setattr("forecasting.demo_scores.SHORT_STRIDE_STEPS", 121)
    return graphtide


def scores_of(out: str) -> str:
    """Return the tables of scores, which end with the time that all took."""
    return out.partition(" s: ingest")[0].rpartition("\n")[0]


def test_demo_goes_the_whole_way_and_the_second_time_without_training(small: Cli) -> None:
    first = small("demo", "--years", "0.25")
    assert first.code == 0, first.err
    folder = Path("graphtide-demo")
    assert "Trained on" in first.err

    html = (folder / "index.html").read_text()
    assert html.startswith("<!doctype html>")
    assert "A simulated social network of 0.25 years, seed 0" in html
    with open_reader(f"sqlite:///{folder}/store.db") as reader:
        snapshots = reader.snapshots("simulated-0.25y")
    assert f"{snapshots.values[:, 0].sum():,.0f} events" in html

    rows = list(csv.DictReader((folder / "simulated-0.25y-168.csv").open()))
    assert len(rows) == 168 * len(METRIC_NAMES)
    far = pq.read_table(folder / "simulated-0.25y-1500.parquet")
    assert far.num_rows == FAR_STEPS * len(METRIC_NAMES)
    assert json.loads(far.schema.metadata[b"graphtide.horizon"]) == FAR_STEPS
    np.testing.assert_allclose([float(row["q0.1"]) for row in rows], far["q0.1"].to_numpy()[: len(rows)], rtol=1e-4)

    # What the card says of the data: all but the last weeks.
    card = json.loads((folder / "models" / "simulated-0.25y" / "card.json").read_text())
    assert card["data"][0]["steps"] == len(snapshots) - 2 * 168
    assert f"<dd>{card['digest']}</dd>" in html
    assert "One step ahead" in first.out
    for name in ("mamba2", "seasonal_naive", "profile_level"):
        assert name in first.out

    second = small("demo", "--years", "0.25")
    assert second.code == 0, second.err
    assert "Already there" in second.err
    assert "not trained again" in second.err
    assert "not scored again" in second.err
    assert scores_of(second.out) == scores_of(first.out) != ""
    assert "Trained on" not in second.err
    assert json.loads((folder / "models" / "simulated-0.25y" / "card.json").read_text()) == card

    # The commands that the demo recommends find its store and its model.
    assert "--config graphtide-demo/config.toml forecast simulated-0.25y" in first.out
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["store"]["url"] == f"sqlite:///{folder.resolve()}/store.db"
    ran = small("--config", folder / "config.toml", "forecast", "simulated-0.25y", "--horizon", 168, "--format", "csv")
    assert ran.code == 0, ran.err
    assert "there was no model" not in ran.err
    assert ran.out == (folder / "simulated-0.25y-168.csv").read_text()


def test_demo_goes_on_where_it_was_stopped(small: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("forecasting.demo.train_graph", interrupted)
        ran = small("demo", "--years", "0.25", "--output", "here")
    assert ran.code == 130
    assert "goes on from there" in ran.err
    assert sorted(path.name for path in Path("here").iterdir() if not path.name.startswith("store.db")) == []

    with monkeypatch.context() as patched:
        patched.setattr("forecasting.demo.render", interrupted)
        ran = small("demo", "--years", "0.25", "--output", "here")
    assert ran.code == 130
    assert "Already there" in ran.err
    assert not Path("here/index.html").exists()

    card = Path("here/models/simulated-0.25y/card.json")
    card.write_text("{")
    ran = small("demo", "--years", "0.25", "--output", "here")
    assert ran.code == 0, ran.err
    assert "cannot be used: the model card is corrupt" in ran.err
    assert "Trained on" in ran.err
    assert Path("here/index.html").exists()
    assert not list(Path("here").rglob("*.part"))


def test_demo_of_a_public_log(small: Cli, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_DATA_DIR", str(data_dir))
    ran = small("demo", "--dataset", "collegemsg")
    assert ran.code == 0, ran.err
    html = Path("graphtide-demo-collegemsg/index.html").read_text()
    assert "Private messages at a university (CollegeMsg, published by SNAP): 59,835 events between 1,899 nodes" in html


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dataset", "sx-mathoverfow"), "use one of: sx-mathoverflow"),
        (("--years", "0.05"), "give at least 0.1"),
        (("--years", "nan"), "years"),
        (("--years", "1", "--dataset", "CollegeMsg"), "--years is for the simulated network"),
        (("--seed", "-1"), "--seed cannot be '-1'"),
        (("--budget-s", "soon"), "--budget-s cannot be 'soon'"),
        (("--output", "taken"), "it is no folder"),
    ],
)
def test_wrong_calls_are_explained_and_leave_nothing(graphtide: Cli, arguments: tuple[str, ...], said: str) -> None:
    Path("taken").touch()
    ran = graphtide("demo", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert [path.name for path in Path().iterdir()] == ["taken"]


def test_log_that_is_too_short_is_explained(small: Cli, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_DATA_DIR", str(data_dir))
    ran = small("demo", "--dataset", "digg-reply")
    assert ran.code == 1
    assert "too few for a demo: 840 are needed" in ran.err
    assert "take a longer log" in ran.err


def test_demo_stands_first_in_the_help_and_has_an_example(graphtide: Cli) -> None:
    listed = graphtide("--help").out
    assert listed.index(" demo ") < listed.index(" ingest ")
    assert "Example: graphtide demo" in " ".join(graphtide("demo", "--help").out.split())
