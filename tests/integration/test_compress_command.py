"""`graphtide compress`: a smaller form takes the place of a model where it forecasts as well, and forecasts say so.

What docs/compression.md shows is run here, on a small model.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from forecasting import compression
from forecasting.forms import full_model
from forecasting.history import read_history
from forecasting.training import describe, train_graph
from infra.errors import ModelError
from models import checkpoint
from models.forecaster import ForecasterConfig, ForecasterNet
from models.optimisation import TrainingConfig
from models.pruning import OnWeighed, prune
from models.samples import Batch
from stream.store import open_reader
from tests.conftest import Ran

Cli = Callable[..., Ran]
OWN = Path(".graphtide/models/toy")
WEEK = 7 * 24


@pytest.fixture(scope="session")
def toy_model(toy_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of two layers, hardly trained."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    with open_reader(toy_store) as reader:
        history = read_history(reader, "toy")
    config = ForecasterConfig(d_model=32, n_layers=2, d_state=8, headdim=16)
    # A week of steps has closed since.
    past = history.part(0, len(history) - WEEK)
    train_graph(past, "toy", folder, config, TrainingConfig(max_iterations=2, tokens_per_batch=512))
    return folder


@pytest.fixture
def at_the_toy(clean_environment: Path, toy_store: str, toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(toy_model, OWN)
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", toy_store)
    for name, value in {"COMPRESSION__WINDOWS": "1", "TRAINING__TOKENS_PER_BATCH": "128"}.items():
        monkeypatch.setenv(f"GRAPHTIDE_{name}", value)


def digest() -> str:
    found = checkpoint.load(OWN)
    assert found is not None
    return found.digest


@pytest.mark.usefixtures("at_the_toy")
def test_int8_weights_answer_say_so_and_can_be_taken_back(graphtide: Cli) -> None:
    before, full = graphtide("forecast", "toy", "--horizon", 3).out, digest()
    ran = graphtide("compress", "toy", "--weights", "int8", "--json")
    assert ran.code == 0, ran.err
    card = json.loads(ran.out)
    said = card["compression"]
    assert (card["precision"], said["parent"], said["method"]) == ("int8", full, "int8")
    assert said["bytes"][1] < 0.3 * said["bytes"][0]
    assert said["backtest"]["holds"]
    assert abs(said["backtest"]["wql_ratio"] - 1) < 0.005
    assert digest() == card["digest"] != full
    answer = graphtide("forecast", "toy", "--horizon", 3)
    assert "a smaller form of the model answers: int8" in answer.err
    assert answer.out != before
    # Again, and of the full model again: a form of a form would lose twice.
    other = graphtide("compress", "toy", "--weights", "bf16", "--json")
    assert json.loads(other.out)["compression"]["parent"] == full
    assert graphtide("compress", "toy", "--undo").code == 0
    assert (digest(), graphtide("forecast", "toy", "--horizon", 3).out) == (full, before)
    assert not (OWN / "full").exists()
    assert "full one already" in graphtide("compress", "toy", "--undo").err


@pytest.mark.usefixtures("at_the_toy")
def test_a_form_that_forecasts_worse_is_not_used_unless_it_is_forced(
    graphtide: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = digest()

    def clumsy(net: ForecasterNet, share: float, batches: Sequence[Batch], on_weighed: OnWeighed) -> ForecasterNet:
        """Prune, and draw the head at random: neither one iteration nor calibration mends that."""
        small = prune(net, share, batches, on_weighed)
        torch.nn.init.normal_(small.head.weight, std=0.5, generator=torch.Generator().manual_seed(0))
        return small

    # A toy that is hardly trained may forecast better without half of it.
    monkeypatch.setattr(compression, "prune", clumsy)
    call = ("compress", "toy", "--prune", "0.5", "--iterations", "1")
    ran = graphtide(*call)
    assert ran.code == 1
    assert "nothing was changed" in ran.err
    assert digest() == full
    assert sorted(path.name for path in OWN.iterdir()) == ["card.json", f"weights-{full[:16]}.safetensors"]
    forced = graphtide(*call, "--force", "--json")
    assert forced.code == 0, forced.err
    assert "forced" in forced.err
    said = json.loads(forced.out)["compression"]
    assert not said["backtest"]["holds"]
    assert said["parameters"][1] <= 0.5 * said["parameters"][0]
    assert "it was forced" in graphtide("forecast", "toy", "--horizon", 3).err
    kept = full_model(OWN)
    assert kept is not None
    assert kept.digest == full


@pytest.mark.usefixtures("at_the_toy")
def test_a_student_takes_the_place_of_its_teacher(
    graphtide: Cli, toy_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_TRAINING__SEED", "5")
    ran = graphtide("compress", "toy", "--distil", "--weights", "bf16", "--iterations", "2", "--force", "--json")
    assert ran.code == 0, ran.err
    card = json.loads(ran.out)
    assert (card["architecture"]["n_layers"], card["precision"]) == (1, "bf16")
    assert card["compression"]["method"] == "distilled, bf16"
    with open_reader(toy_store) as reader:
        assert (card["data"], card["seed"]) == ([describe(read_history(reader, "toy"), "toy")], 5)
    assert graphtide("forecast", "toy", "--horizon", 3).code == 0
    # A training anew begins from nothing of it.
    assert graphtide("train", "toy", "--iterations", "1").code == 0
    assert full_model(OWN) is not None
    assert "compression" not in json.loads((OWN / "card.json").read_text())


@pytest.mark.usefixtures("at_the_toy")
def test_what_makes_no_sense_is_refused(graphtide: Cli) -> None:
    for arguments, code, said in (
        (("toy",), 2, "nothing is to be made smaller"),
        (("toy", "--distil", "--prune", "0.5"), 2, "not both"),
        (("toy", "--prune", "1.5"), 2, "below 1"),
        (("toy", "--prune", "nan"), 2, "below 1"),
        (("toy", "--weights", "int4"), 2, "int4"),
        (("--weights", "int8"), 2, "needs a graph"),
        (("toy", "--undo", "--weights", "int8"), 2, "--undo"),
        (("toi", "--weights", "int8"), 1, "toi"),
        (("toy", "--prune", "0.999"), 1, "cannot be pruned"),
    ):
        ran = graphtide("compress", *arguments)
        assert (ran.code, said in ran.err) == (code, True), (arguments, ran.err)
        assert "Traceback" not in ran.err
    shutil.rmtree(OWN)
    for arguments in (("toy", "--weights", "int8"), ("toy", "--undo")):
        ran = graphtide("compress", *arguments)
        assert (ran.code, "no model of its own" in ran.err) == (1, True)


@pytest.mark.usefixtures("at_the_toy")
def test_the_general_model_is_compared_on_the_public_logs(
    graphtide: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAPHTIDE_DATA_DIR", str(tmp_path))
    ran = graphtide("compress", "--general", "small", "--weights", "int8")
    assert (ran.code, "sx-mathoverflow is not at hand" in ran.err) == (1, True)
    assert not Path("small").exists()
    assert graphtide("compress", "toy", "--general", "small", "--weights", "int8").code == 2


@pytest.mark.usefixtures("at_the_toy")
def test_a_smaller_form_without_its_full_model_says_what_is_missing(graphtide: Cli) -> None:
    assert graphtide("compress", "toy", "--weights", "bf16").code == 0
    shutil.rmtree(OWN / "full")
    with pytest.raises(ModelError, match="is gone"):
        full_model(OWN)
    ran = graphtide("compress", "toy", "--undo")
    assert (ran.code, "restore it from a backup" in ran.err) == (1, True)
    assert graphtide("forecast", "toy", "--horizon", 3).code == 0


@pytest.mark.usefixtures("at_the_toy")
def test_a_graph_that_is_trained_again_keeps_nothing_of_the_model_before(graphtide: Cli) -> None:
    ran = graphtide("compress", "toy", "--weights", "int8")
    assert ran.code == 0, ran.err
    with_form = {path.name for path in OWN.iterdir()}
    ran = graphtide("train", "toy", "--iterations", 1)
    assert ran.code == 0, ran.err
    assert "full" in with_form
    assert {path.name.split("-")[0] for path in OWN.iterdir()} == {"card.json", "weights"}
    assert graphtide("compress", "toy", "--undo").code != 0


@pytest.mark.usefixtures("at_the_toy")
def test_a_graph_that_is_too_young_is_named(graphtide: Cli, toy_model: Path) -> None:
    log = Path("log.ndjson")
    log.write_text('{"src": "a", "dst": "b", "ts": 1767225600}\n')
    assert graphtide("ingest", log, "--graph", "young", "--store", "sqlite:///young.db").code == 0
    shutil.copytree(toy_model, OWN.with_name("young"))
    ran = graphtide("compress", "young", "--weights", "int8", "--store", "sqlite:///young.db")
    assert ran.code == 1
    assert "too short to train on" in ran.err
    assert "at:  graph young" in ran.err
