"""`graphtide train`: on from the general model, in one process or in several that agree."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models import checkpoint, general_folder
from tests.conftest import Ran

Cli = Callable[..., Ran]


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


@pytest.mark.usefixtures("at_the_toy")
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [sys.executable, "-c", "from forecasting.cli import main; main()"]
    command += ["train", "toy", "--distributed", "--iterations", "3", "--json"]
    small = {"GRAPHTIDE_FORECASTER__D_MODEL": "16", "GRAPHTIDE_FORECASTER__N_LAYERS": "1"}
    small |= {"GRAPHTIDE_TRAINING__TOKENS_PER_BATCH": "256", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=os.environ | small, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    cards = [json.loads(line)[0] for line in ran.stdout.splitlines() if line.startswith("[{")]
    assert [card["scores"]["workers"] for card in cards] == [2, 2]
    # Gradients are shared: both processes hold the same weights and find the same losses.
    assert cards[0]["scores"]["validation_loss"] == cards[1]["scores"]["validation_loss"]
    assert "in 2 processes" in ran.stderr


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
    monkeypatch.setenv("GRAPHTIDE_FORECASTER__D_MODEL", "32")
    ran = graphtide("train", "--general", "folder", "--teachers", str(general_folder()))
    assert ran.code == 2
    assert "has the architecture" in ran.err
    assert not Path("folder").exists()
