"""Trainings side by side: all are done, whoever waits sees how far they are, and one that fails ends the others."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from forecasting.general_training import GeneralTraining, taught_config, teacher_config
from forecasting.teachers import train_side_by_side
from infra.errors import GraphtideError, ModelError
from infra.settings import MAX_SEED, GeneralSettings, Settings, TrainingSettings
from models import checkpoint, general_folder
from models.optimisation import TrainingConfig, TrainingProgress


@dataclass(frozen=True)
class Stands:
    """Stands for a training: leaves a file when it is done."""

    folder: Path
    fate: str = "done"

    def run(self, on_progress: Callable[[TrainingProgress], None]) -> None:
        on_progress(TrainingProgress(1, 0.5, 0.4, 1.0, 0.5, 100.0))
        if self.fate == "fails":
            raise ModelError("the training loss is not finite", fix="lower [training] learning_rate")
        if self.fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "hangs":
            time.sleep(600)
        on_progress(TrainingProgress(2, 0.4, 0.3, 2.0, 1.0, 100.0))
        self.folder.write_text(f"{os.getpid()}")


def test_all_are_done_in_processes_of_their_own_and_seen(tmp_path: Path) -> None:
    seen: list[list[TrainingProgress]] = []
    trainings = [Stands(tmp_path / f"{number}") for number in range(3)]
    train_side_by_side(trainings, 2, seen.append)
    processes = {one.folder.read_text() for one in trainings}
    assert len(processes) == 3
    assert str(os.getpid()) not in processes
    assert len(seen) == 6
    assert [state.iteration for state in seen[-1]] == [2, 2, 2]
    # The third waits for a place.
    assert len(seen[0]) == 1
    assert all(2 in [state.iteration for state in states[:2]] for states in seen if len(states) == 3)


@pytest.mark.parametrize(
    ("fate", "said"), [("fails", "the training loss is not finite"), ("killed", "was ended from outside")]
)
def test_one_that_fails_ends_the_others(tmp_path: Path, fate: str, said: str) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(GraphtideError, match=said):
        train_side_by_side([Stands(tmp_path / "a", "hangs"), Stands(tmp_path / "b", fate)], 2, lambda _: None)
    assert set(multiprocessing.active_children()) <= before


def test_seeds_follow_each_other_and_begin_again_behind_the_largest() -> None:
    settings = Settings(training=TrainingSettings(seed=MAX_SEED - 1, tuning_rate=0.5))
    configs = [teacher_config(settings, number) for number in range(2)]
    assert [config.seed for config in configs] == [MAX_SEED - 1, MAX_SEED]
    assert {config.max_iterations for config in configs} == {GeneralSettings().teacher_iterations}
    taught = taught_config(settings, 2)
    assert (taught.seed, taught.max_iterations, taught.learning_rate) == (0, GeneralSettings().iterations, 0.5)


def test_what_another_training_made_is_not_taken_for_the_same(tmp_path: Path) -> None:
    found = checkpoint.load(general_folder())
    assert found is not None
    teachers = [checkpoint.Checkpoint(found.net, {**found.card, "digest": name}) for name in found.card["teachers"]]
    config = TrainingConfig(**found.card["scores"]["training"])
    same = GeneralTraining([], general_folder(), found.net.config, config, 24, teachers=teachers)
    assert same.kept() is not None
    others = (
        replace(same, simulated=23),
        replace(same, exclude=("wiki-elec",)),
        replace(same, teachers=teachers[:1]),
        replace(same, teachers=teachers[::-1]),
        replace(same, forecaster=replace(found.net.config, d_model=128)),
        replace(same, config=replace(config, max_iterations=601)),
        replace(same, folder=tmp_path),
    )
    assert [other.kept() for other in others] == [None] * len(others)
