"""The simulator of faulty ingestion: its runs pass, repeat exactly, and find bugs that are planted."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stream.events import Event, EventBatch, Interner
from stream.ingest import Ingest, IngestOptions
from stream.sources.base import Claims, Part, PartitionedBatch
from stream.store.sql.writer import SqlWriter
from stream.store.sqlite import SqliteDatabase
from tests.docs_blocks import blocks_of
from tests.simulator import oracle, run
from tests.simulator.batch import outcomes
from tests.simulator.bugs import BUGS, FOUND_BY
from tests.simulator.faults import MIN_EVENTS, MIN_FAULTS, Plan
from tests.simulator.history import Deed, make_histories
from tests.simulator.run import Simulator
from tests.simulator.sink import Sink

ROOT = Path(__file__).parents[3]
# Around the first seed that finds each bug, with a margin since any change of the log or the schedule moves it.
SEEDS_OF_BUGS = {
    "positions-apart": range(4),
    "lateness-by-all": range(4),
    "outbox-emptied-early": range(16),
    "first-seen-stays": range(8),
    "ids-in-memory": range(4),
    "claims-unchecked": range(24, 30),
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
    """Return the first seed whose run comes to something wrong."""
    return next((each.seed for each in outcomes(seeds, bug=bug) if (each.problem or "").startswith(FOUND_BY)), None)


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
    assert failures(range(250), processes=2) == []


def test_a_seed_repeats_its_run_exactly() -> None:
    with Simulator() as one, Simulator() as other:
        for seed in (1, 3):
            assert one.run(seed).digest == other.run(seed).digest


class OneBatch:
    """All events at once, sorted; a `PartitionedSource`."""

    name = "undisturbed"

    def __init__(self, deeds: Sequence[Deed]) -> None:
        self._events = [
            Event(deed.src, deed.dst, deed.ts_us, graph=deed.graph, type=deed.type)
            for deed in sorted(deeds, key=lambda deed: deed.ts_us)
        ]

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        claims.claim(("0",))
        batch = EventBatch.from_events(self._events, Interner())
        yield PartitionedBatch(batch, (Part("0", 0, len(batch), {"offset": len(batch)}),))


@pytest.mark.parametrize("seed", range(12))
def test_what_must_come_out_is_what_an_undisturbed_ingestion_gives(seed: int, tmp_path: Path) -> None:
    plan = Plan.of(seed)
    events = oracle.judge(plan, make_histories(plan)).events
    options = IngestOptions(
        step_us=plan.step_us,
        out_of_orderness_us=plan.out_of_orderness_us,
        dedup_window_us=0,
        split_by_type=plan.split_by_type,
    )
    with SqlWriter(SqliteDatabase(tmp_path / "store.db")) as writer:
        Ingest(OneBatch(events), writer, options).run()
        assert oracle.metrics_of(writer.database) == oracle.snapshots_of(plan, events)


@pytest.mark.timeout(0)  # it would use the same alarm
def test_a_run_that_waits_for_something_outside_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_HANG_S", 0.5)
    monkeypatch.setattr(Sink, "write", lambda *_: threading.Event().wait())
    with Simulator() as simulator:
        assert (simulator.run(1).problem or "").startswith("HangingError: a simulated process waits")


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
