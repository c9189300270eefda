"""The simulator of faulty ingestion: its runs pass, repeat exactly, and find bugs that are planted."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_blocks import blocks_of
from tests.simulator.batch import outcomes
from tests.simulator.bugs import BUGS
from tests.simulator.faults import MIN_EVENTS, MIN_FAULTS
from tests.simulator.run import Simulator

ROOT = Path(__file__).parents[3]
# Around the first seed that finds each bug, with a margin since any change of the log or the schedule moves it.
SEEDS_OF_BUGS = {
    "positions-apart": range(4),
    "lateness-by-all": range(4),
    "outbox-emptied-early": range(40, 60),
    "first-seen-stays": range(8),
    "ids-in-memory": range(4),
    "claims-unchecked": range(12),
    "others-not-waited-for": range(20, 32),
    "split-graphs-kept": range(20, 32),
}


def failures(seeds: range, processes: int = 1) -> list[str]:
    return [
        f"seed {outcome.seed}: {outcome.problem}; {outcome.replay}"
        for outcome in outcomes(seeds, processes=processes)
        if outcome.problem is not None
    ]


def found_by(bug: str, seeds: range) -> int | None:
    """Return the first seed whose run comes to something wrong; that it breaks down in another way proves nothing."""
    verdicts = ("WrongResultError", "BrokenInvariantError", "StuckError")
    return next((each.seed for each in outcomes(seeds, bug=bug) if (each.problem or "").startswith(verdicts)), None)


def test_the_commands_of_the_page_run_as_written() -> None:
    """Twenty runs end as an undisturbed one, one tells its trace, and a planted bug is found."""
    (block,) = [block for block in blocks_of((ROOT / "docs" / "simulator.md").read_text()) if block.run_by]
    for (command, _), (code, tells) in zip(
        block.commands(), ((0, "20 runs, 0 failed"), (0, "trace "), (1, "seed ")), strict=True
    ):
        meant = command.replace(".venv/bin/python", sys.executable)
        ran = subprocess.run(
            ["bash", "-euc", meant], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
        )
        assert ran.returncode == code, f"{command}\n{ran.stdout}{ran.stderr}"
        assert tells in ran.stdout, ran.stdout[-2000:]


@pytest.mark.slow
def test_many_runs_end_as_an_undisturbed_one() -> None:
    assert failures(range(500), processes=2) == []


def test_a_seed_repeats_its_run_exactly() -> None:
    with Simulator() as one, Simulator() as other:
        for seed in (1, 3):
            assert one.run(seed).digest == other.run(seed).digest


def test_runs_are_as_large_and_as_faulty_as_promised() -> None:
    for outcome in outcomes(range(4)):
        assert outcome.events >= MIN_EVENTS
        assert outcome.faults >= MIN_FAULTS


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_planted_bugs_are_found(bug: str) -> None:
    assert found_by(bug, SEEDS_OF_BUGS[bug]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("bug", sorted(BUGS))
def test_planted_bugs_are_found_within_500_seeds(bug: str) -> None:
    assert found_by(bug, range(500)) is not None
