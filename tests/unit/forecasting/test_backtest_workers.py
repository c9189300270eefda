"""Backtests in worker processes: the same scores as here, nothing that was finished is made twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forecasting.backtests.kept import KeptParts, keep, read
from forecasting.backtests.parts import Part, run_parts
from forecasting.backtests.plan import make_plan
from forecasting.backtests.workers import Entrant, Task, checkpoint_digest, run_tasks, shared_out
from forecasting.resolving import general_model
from infra.errors import ModelError
from infra.steps import DAY_US
from models.baselines import SeasonalNaive
from models.checkpoint import Checkpoint
from models.contract import History
from tests.unit.forecasting.forecast_cases import some_history

HISTORY = some_history(120, step_us=DAY_US)
PLAN = make_plan(HISTORY, horizons=(1, 7), origins=4)


def tasks(folder: Path, *names: str) -> list[Task]:
    paths = {name: {n: folder / f"{name}-{n}.safetensors.zst" for n in range(4)} for name in names}
    return [Task("g", HISTORY, PLAN, Entrant(name, ""), paths[name]) for name in names]


def scores(part: Part | None) -> list[object]:
    assert part is not None
    return [tally.shares_below()[0].tolist() for tally in part.tallies]


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    seen: list[int] = []
    run_tasks(tasks(tmp_path / "one", "drift", "profile_level"), 1, seen.append)
    assert seen == list(range(1, 9))
    run_tasks(tasks(tmp_path / "two", "drift", "profile_level"), 2, seen.append)
    assert seen[-1] == 8
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    for name in names:
        assert scores(read(tmp_path / "one" / name)) == scores(read(tmp_path / "two" / name))


def test_work_is_shared_out_without_loss(tmp_path: Path) -> None:
    whole = tasks(tmp_path, "drift", "persistence")
    assert shared_out(whole, 1) == whole
    shares = shared_out(whole, 2)
    assert len(shares) > len(whole)
    assert [path for task in shares for path in task.paths.values()] == [
        path for task in whole for path in task.paths.values()
    ]


def test_what_was_finished_before_an_end_is_kept(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks(tmp_path, "drift"), 1, stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drift-0.safetensors.zst", "drift-1.safetensors.zst"]
    assert read(tmp_path / "drift-1.safetensors.zst") is not None


def test_workers_end_with_who_began_them() -> None:
    begin_and_be_killed = """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from forecasting.child_process import begin_child
executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=begin_child)
print(executor.submit(os.getpid).result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Their standard output ends when the last of them did.
    ran = subprocess.run([sys.executable, "-c", begin_and_be_killed], stdout=subprocess.PIPE, timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    assert int(ran.stdout) > 0


def test_a_model_that_fails_is_named_with_its_graph(tmp_path: Path) -> None:
    (task,) = tasks(tmp_path, "drift")
    gone = Task(task.graph, task.history, task.plan, Entrant("mamba2", "d", tmp_path / "none"), task.paths)
    with pytest.raises(ModelError, match="changed while") as caught:
        run_tasks([gone], 1, lambda done: None)
    assert "mamba2 on graph g" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_names_change_with_all_that_a_part_depends_on(tmp_path: Path) -> None:
    kept = KeptParts(tmp_path)
    assert kept.path("drift", {"a": 1}) == KeptParts(tmp_path).path("drift", {"a": 1})
    assert len({kept.path("drift", values) for values in ({"a": 1}, {"a": 2}, {"b": 1})}) == 3
    digests = PLAN.data_digests(HISTORY)
    changed = HISTORY.values.copy()
    changed[PLAN.origins[2]] += 1
    others = PLAN.data_digests(History(HISTORY.step_us, HISTORY.start_us, changed))
    assert [ours == theirs for ours, theirs in zip(digests, others, strict=True)] == [True, True, False, False]
    assert digests != PLAN.data_digests(History(HISTORY.step_us, HISTORY.start_us + 1, HISTORY.values))


def test_a_part_depends_on_the_weights_and_on_what_the_card_adds() -> None:
    found = general_model()
    same = Checkpoint(found.net, {**found.card, "seed": 99, "scores": {}})
    assert checkpoint_digest(same) == checkpoint_digest(found)
    for name in ("digest", "ranks", "calibration", "calibrations", "season_steps", "precision"):
        other = Checkpoint(found.net, {**found.card, name: "another"})
        assert checkpoint_digest(other) != checkpoint_digest(found)


def test_a_damaged_part_is_made_again_and_old_ones_are_swept(tmp_path: Path) -> None:
    parts: list[Part] = []
    run_parts(HISTORY, SeasonalNaive(), PLAN, [0], lambda number, part: parts.append(part))
    path = tmp_path / "a.safetensors.zst"
    keep(path, parts[0])
    assert scores(read(path)) == scores(parts[0])
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 50):
        path.write_bytes(damaged)
        assert read(path) is None
    assert read(tmp_path / "none.safetensors.zst") is None
    old = tmp_path / "old.safetensors.zst"
    old.write_bytes(whole)
    os.utime(old, (0, 0))
    KeptParts(tmp_path).sweep()
    assert [found.name for found in tmp_path.iterdir()] == ["a.safetensors.zst"]
