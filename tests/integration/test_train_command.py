"""`graphtide train`: on from the general model, in one process or in several that agree."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from infra.file_lock import file_lock_if_free
from infra.steps import HOUR_US
from models import checkpoint, general_folder
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.datasets import DATASETS
from stream.sources.simulate import SimulatedSource
from stream.store import open_writer
from tests.conftest import Ran, lacking

Cli = Callable[..., Ran]
SMALL = {
    "GRAPHTIDE_FORECASTER__D_MODEL": "16",
    "GRAPHTIDE_FORECASTER__N_LAYERS": "1",
    "GRAPHTIDE_TRAINING__TOKENS_PER_BATCH": "256",
}


# Runs the command line, and keeps what the training made in this process. The second one reads before a step closes.
_TRAIN_AND_TELL = """
import hashlib, json, os, sys
from pathlib import Path
from forecasting import history, training
from forecasting.cli import main

folder, trained, read = Path(sys.argv.pop(1)), training.train, history.read_history
def read_history(*arguments):
    found = read(*arguments)
    return found.part(0, len(found) - int(os.environ["RANK"]))
history.read_history = read_history
def train(*arguments, **options):
    made = trained(*arguments, **options)
    weights = b"".join(tensor.numpy().tobytes() for tensor in made.net.state_dict().values())
    told = [hashlib.sha256(weights).hexdigest(), made.validation_loss]
    Path(folder, f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told))
    return made
training.train = train
main()
"""


@pytest.fixture
def at_the_toy(clean_environment: Path, toy_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", toy_store)


@pytest.mark.usefixtures("at_the_toy")
def test_training_goes_on_from_the_general_model(graphtide: Cli) -> None:
    general = checkpoint.read_card(general_folder())
    assert general is not None
    ran = graphtide("train", "toy", "--iterations", 2, "--json")
    assert ran.code == 0, ran.err
    (card,) = json.loads(ran.out)
    assert card["started_from"] == general["digest"]
    assert card["scores"]["iterations"] == 2
    fresh = graphtide("train", "toy", "--iterations", 2, "--from-scratch", "--json")
    (other,) = json.loads(fresh.out)
    assert other["started_from"] is None
    # What the general model knows is worth more than two iterations.
    assert card["scores"]["validation_loss"] < 0.97 * other["scores"]["validation_loss"]


@pytest.fixture(scope="module")
def young_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a store with graphs that are old enough, one that is too young, and one without a step."""
    url = f"sqlite:///{tmp_path_factory.mktemp('young') / 'store.db'}"
    for seed, (graph, years) in enumerate((("aaa", 0.1), ("aayoung", 0.011), ("bbb", 0.1))):
        config = SimulationConfig(years=years, events_per_hour=2.0, initial_users=40, communities=4, seed=seed)
        ingest(SimulatedSource(config, graph=graph), url, IngestOptions())
    with open_writer(url) as writer, writer.transaction():
        writer.link(writer.add_source("new", split_by_type=False), "", writer.add_graph("aanew", HOUR_US))
    return url


@pytest.fixture
def at_the_young(clean_environment: Path, young_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", young_store)
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> str:
    """Return an engine that is installed."""
    name = str(request.param)
    if name == "ray" and find_spec("ray") is None:
        lacking("ray", "the extra `ray` is not installed")
    return name


@pytest.mark.usefixtures("at_the_young")
def test_young_graphs_hold_up_no_other(graphtide: Cli) -> None:
    ran = graphtide("train", "--iterations", 1, "--json")
    assert ran.code == 0, ran.err
    assert [card["data"][0]["graph"] for card in json.loads(ran.out)] == ["aaa", "bbb"]
    assert "aanew: left out: it has no closed step yet" in ran.err
    assert "aayoung: left out: a history of 96 steps is too short to train on; wait for 672 steps" in ran.err
    assert sorted(path.name for path in Path(".graphtide/models").iterdir()) == ["aaa", "bbb"]
    # Killed before the last: those that are finished are not trained again.
    shutil.rmtree(".graphtide/models/bbb")
    again = graphtide("train", "--iterations", 1, "--json")
    assert [card["digest"] for card in json.loads(again.out)] == [card["digest"] for card in json.loads(ran.out)]
    assert "aaa: up to date" in again.err
    assert "bbb: up to date" not in again.err
    assert "aaa: up to date" not in graphtide("train", "aaa", "--iterations", 1, "--seed", 3).err


@pytest.mark.usefixtures("at_the_young")
def test_a_training_that_runs_is_not_begun_twice(graphtide: Cli) -> None:
    with file_lock_if_free(Path(".graphtide/models/aaa/.training.lock")):
        named = graphtide("train", "aaa", "--iterations", 1)
        assert (named.code, "another process trains a model of graph aaa now" in named.err) == (2, True)
        every = graphtide("train", "--iterations", 1, "--json")
    assert "aaa: left out: another process trains it now" in every.err
    assert [card["data"][0]["graph"] for card in json.loads(every.out)] == ["bbb"]
    # Asked for, what is up to date is made anew.
    assert "bbb: up to date" in graphtide("train", "bbb", "--iterations", 1).err
    assert "bbb: up to date" not in graphtide("train", "bbb", "--iterations", 1, "--restart").err


@pytest.mark.usefixtures("at_the_young")
def test_a_young_graph_that_is_named_is_refused_before_any_training(graphtide: Cli, engine: str) -> None:
    ran = graphtide("train", "aaa", "aayoung", "bbb", "--iterations", 1, "--engine", engine)
    assert ran.code == 1
    assert "a history of 96 steps is too short to train on" in ran.err
    assert "at:  graph aayoung" in ran.err
    assert not Path(".graphtide/models").exists()


def test_a_store_of_young_graphs_alone_is_refused(graphtide: Cli, tmp_path: Path, engine: str) -> None:
    url = f"sqlite:///{tmp_path / 'short.db'}"
    for graph in ("one", "two"):
        ingest(SimulatedSource(SimulationConfig(years=0.005), graph=graph), url, IngestOptions())
    ran = graphtide("train", "--store", url, "--engine", engine)
    assert ran.code == 1
    assert "one: left out" in ran.err
    assert "two: left out" in ran.err
    assert "no graph of the store is long enough to train on" in ran.err


def in_two_processes(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run code below torchrun, and make sure that it succeeds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [sys.executable, "-c", code, *arguments]
    small = SMALL | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=os.environ | small, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


@pytest.mark.usefixtures("at_the_toy")
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    ran = in_two_processes(
        _TRAIN_AND_TELL, str(tmp_path), "train", "toy", "--distributed", "--iterations", "3", "--json"
    )
    # One of them speaks for both.
    (card,) = json.loads(ran.stdout)
    assert card["scores"]["workers"] == 2
    assert "in 2 processes" in ran.stderr
    # Gradients are shared, and steps: both processes hold the same weights and find the same losses.
    kept = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("rank-*.json"))]
    assert len(kept) == 2
    assert kept[0] == kept[1]


@pytest.mark.usefixtures("at_the_toy")
def test_distributed_without_torchrun_is_refused(graphtide: Cli) -> None:
    ran = graphtide("train", "toy", "--distributed")
    assert ran.code == 2
    assert "torchrun" in ran.err


@pytest.mark.usefixtures("at_the_toy")
def test_the_general_model_is_not_trained_on_a_graph(graphtide: Cli) -> None:
    ran = graphtide("train", "toy", "--general", "folder")
    assert ran.code == 2
    assert "leave the graphs out" in ran.err


@pytest.mark.usefixtures("at_the_toy")
def test_a_missing_log_is_named(graphtide: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHTIDE_DATA_DIR", str(tmp_path))
    ran = graphtide("train", "--general", "folder")
    assert ran.code == 1
    assert "sx-mathoverflow is not at hand" in ran.err
    assert not Path("folder").exists()


@pytest.mark.usefixtures("at_the_toy")
def test_teachers_that_cannot_teach_are_named(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = graphtide("train", "--general", "folder", "--teachers", "nowhere")
    assert ran.code == 2
    assert "there is no model in nowhere" in ran.err
    ran = graphtide("train", "toy", "--teachers", str(general_folder()))
    assert ran.code == 2
    assert "--teachers goes with --general" in ran.err
    # A log whose name has a mistake would be learned from, though it was to be left out.
    ran = graphtide("train", "--general", "folder", "--exclude", "CollegeMsg, mathoverflow")
    assert ran.code == 2
    assert "there is no public log 'mathoverflow'" in ran.err
    assert "sx-mathoverflow" in ran.err
    for option, value in (("--exclude", "CollegeMsg"), ("--simulated", 3)):
        ran = graphtide("train", "toy", option, value)
        assert ran.code == 2
        assert f"{option} goes with --general" in ran.err
    monkeypatch.setenv("GRAPHTIDE_FORECASTER__D_MODEL", "32")
    ran = graphtide("train", "--general", "folder", "--teachers", str(general_folder()))
    assert ran.code == 2
    assert "has the architecture" in ran.err
    assert not Path("folder").exists()


@pytest.mark.usefixtures("clean_environment")
def test_one_command_makes_teachers_and_the_model_that_learns_from_them(
    graphtide: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    # None of the public logs is at hand everywhere; networks are simulated anywhere.
    command = ("train", "--general", "made", "--exclude", ",".join(DATASETS), "--simulated", 1, "--iterations", 2)
    ran = graphtide(*command, "--seed", 7, "--json")
    assert ran.code == 0, ran.err
    (card,) = json.loads(ran.out)
    teachers = [checkpoint.load(Path("made/teachers") / name) for name in ("seed-7", "seed-8")]
    assert [teacher.card["seed"] for teacher in teachers if teacher is not None] == [7, 8]
    assert card["teachers"] == [teacher.digest for teacher in teachers if teacher is not None]
    assert (card["seed"], card["scores"]["iterations"]) == (9, 2)
    assert card["data"] == [{"log": "simulated", "networks": 1}]
    # What is trained already is left as it is; what is not is trained from the same teachers.
    ran = graphtide(*command, "--seed", 7)
    assert ran.code == 0
    assert ran.err.count("up to date") == 3
    shutil.rmtree("made/teachers/seed-8")
    checkpoint_before = Path("made/teachers/seed-7/card.json").read_bytes()
    ran = graphtide(*command, "--seed", 7, "--json")
    assert ran.err.count("up to date") == 2, ran.err
    assert Path("made/teachers/seed-7/card.json").read_bytes() == checkpoint_before
    assert json.loads(ran.out)[0]["teachers"] == card["teachers"]
    # A model of its own, and one of teachers that are at hand.
    ran = graphtide(*command[:2], "alone", *command[3:], "--teachers", 0, "--json")
    assert json.loads(ran.out)[0]["teachers"] == []
    assert not Path("alone/teachers").exists()


@pytest.mark.usefixtures("clean_environment")
def test_two_processes_train_teachers_one_after_the_other_and_the_model() -> None:
    begin = "from forecasting.cli import main; main()"
    options = ["--exclude", ",".join(DATASETS), "--simulated", "1", "--iterations", "2", "--json"]
    ran = in_two_processes(begin, "train", "--general", "made", "--distributed", *options)
    (card,) = json.loads(ran.stdout)
    teachers = [checkpoint.load(Path("made/teachers") / name) for name in ("seed-0", "seed-1")]
    assert card["teachers"] == [teacher.digest for teacher in teachers if teacher is not None]
    assert len(card["teachers"]) == 2
    workers = [found.card["scores"]["workers"] for found in (*teachers, checkpoint.load(Path("made"))) if found]
    assert workers == [2, 2, 2]
    # Both find what is trained already, and neither waits for the other.
    again = in_two_processes(begin, "train", "--general", "made", "--distributed", *options)
    assert json.loads(again.stdout) == [card]
    assert again.stderr.count("up to date") == 3
