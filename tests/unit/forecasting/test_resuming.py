"""A training that was killed goes on with its steps while few have closed since and none of them has changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from forecasting.resuming import Steps, forget, steps_to_train_on
from infra.steps import DAY_US
from models.contract import History
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig
from models.training import train
from models.unfinished import MadeOf, read_made_of
from tests.unit.models.model_series import weekly_history

SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16, reach_steps=64)
QUICK = TrainingConfig(budget_s=600, max_iterations=2, tokens_per_batch=64, validate_every=1)
# Of 60 steps, a tenth is less than the season of a week.
ALL = weekly_history(80)
USED = ALL.part(0, 60)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file that a training on the steps of `USED` leaves when it is killed."""
    path = tmp_path_factory.mktemp("killed") / "training.pt"
    train([USED], SMALL, QUICK, resume_from=path, cancelled=path.exists)
    return path.read_bytes()


@pytest.fixture
def folder(killed: bytes, tmp_path: Path) -> Path:
    (tmp_path / "training.pt").write_bytes(killed)
    return tmp_path


def steps(history: History, folder: Path, config: TrainingConfig = QUICK) -> Steps:
    return steps_to_train_on(history, folder, SMALL, config, None)


@pytest.mark.parametrize("later", [0, 1, 6])
def test_it_goes_on_with_its_own_steps(folder: Path, later: int) -> None:
    found = steps(ALL.part(0, 60 + later), folder)
    assert found.goes_on
    assert (found.history.start_us, len(found.history)) == (USED.start_us, 60)
    np.testing.assert_array_equal(found.history.values, USED.values)
    assert ("left to the next training" in found.told) == (later > 0)


def with_an_earlier_step(history: History) -> History:
    values = np.concatenate([history.values[:1], history.values])
    return History(history.step_us, history.start_us - history.step_us, values)


def with_a_late_event(history: History) -> History:
    values = history.values.copy()
    values[59] += 1
    return replace(history, values=values)


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (ALL.part(0, 67), "7 steps have closed since it began, over the 6 that it may miss"),
        (with_a_late_event(ALL.part(0, 62)), "have changed since"),
        (with_an_earlier_step(ALL.part(0, 62)), "have changed since"),
        (ALL.part(1, 62), "have changed since"),
        (ALL.part(0, 59), "have changed since"),
        (ALL.part(70, 80), "have changed since"),
        (replace(ALL.part(0, 62), step_us=DAY_US // 2), "have changed since"),
    ],
)
def test_it_begins_anew(folder: Path, history: History, why: str) -> None:
    found = steps(history, folder)
    assert not found.goes_on
    assert found.history is history
    assert f"begins anew with all {len(history)} steps" in found.told
    assert why in found.told


def test_a_season_is_the_most_that_it_misses(tmp_path: Path) -> None:
    path, history = tmp_path / "training.pt", weekly_history(108)
    train([history.part(0, 100)], SMALL, QUICK, resume_from=path, cancelled=path.exists)
    assert steps(history.part(0, 107), tmp_path).goes_on
    assert "8 steps have closed since it began, over the 7" in steps(history, tmp_path).told


def test_other_options_begin_anew(folder: Path) -> None:
    assert "it had other options" in steps(ALL.part(0, 62), folder, replace(QUICK, seed=1)).told


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_an_earlier_version(path: Path) -> None:
    torch.save({"made_of": "[1, 2]"}, path)


def of_something_else(path: Path) -> None:
    torch.save([1, 2], path)


@pytest.mark.parametrize("spoil", [damaged, of_an_earlier_version, of_something_else])
def test_a_file_that_cannot_be_read_is_named(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder / "training.pt")
    found = steps(USED, folder)
    assert (found.goes_on, found.history) == (False, USED)
    assert "its file cannot be read" in found.told


def test_without_a_file_there_is_nothing_to_say(folder: Path) -> None:
    forget(folder)
    forget(folder)
    assert steps(ALL, folder) == Steps(ALL)


def test_the_file_names_the_last_step(folder: Path) -> None:
    made = read_made_of(folder / "training.pt")
    assert made is not None
    assert made.until_us == USED.start_us + 60 * DAY_US
    assert MadeOf.of_text(made.to_text()) == made
