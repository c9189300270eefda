"""Several processes feed one graph: whatever each reads, in whatever order, the snapshots are those of one alone."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import StoreError
from infra.steps import HOUR_US, step_start_us
from stream.events import Event
from stream.ingest import Ingest, IngestOptions
from stream.windows import NEVER_US
from tests.simulator.disk import Disk, Trouble
from tests.simulator.fiber import Fiber
from tests.unit.stream.ingest_cases import at, ingest_list, make_log, query, run, snapshot_rows
from tests.unit.stream.sharing_cases import Claim, Read, Release, ScriptSource

N_PARTITIONS = 4
NAMES = tuple(str(number) for number in range(N_PARTITIONS))
SPLIT = frozenset({"g", "h"})


def metrics_of(store: Path) -> list[tuple[object, ...]]:
    """Return all snapshots but their revisions, which depend on what was committed together."""
    return [(*row[:2], *row[3:]) for row in snapshot_rows(store)]


def deal(log: Sequence[Event], draw: random.Random, disorder_h: float) -> dict[str, list[Event]]:
    """Return the logs of the partitions: each event goes to one, whatever its graph, a little out of order there."""
    dealt: dict[str, list[Event]] = {name: [] for name in NAMES}
    for event in sorted(log, key=lambda event: event.ts_us + draw.uniform(0, disorder_h) * HOUR_US):
        dealt[draw.choice(NAMES)].append(event)
    last_us = max(event.ts_us for event in log) + 100 * HOUR_US
    for events in dealt.values():
        events.append(Event("z", "z", last_us, graph="g"))
    return dealt


def end_us(dealt: dict[str, list[Event]]) -> int:
    """Return the time of the events that end each partition's log."""
    return dealt[NAMES[0]][-1].ts_us


def counted(dealt: dict[str, list[Event]], *, lateness_h: int) -> tuple[list[Event], int]:
    """Return the events that are not late, judged one by one, and how many are."""
    kept, late = [], 0
    for log in dealt.values():
        largest_us = NEVER_US
        for event in log:
            is_late = step_start_us(event.ts_us, HOUR_US) + (1 + lateness_h) * HOUR_US <= largest_us
            late += is_late
            if not is_late:
                kept.append(event)
            largest_us = max(largest_us, event.ts_us)
    return kept, late


class Member:
    """A process of the group, which goes on by one batch, or one change of its partitions, at a time."""

    def __init__(self, disk: Disk, lateness_h: int) -> None:
        self.has: set[str] = set()
        self._script: list[Claim | Release | Read] = []
        self._fiber = Fiber(self._live)
        self._disk, self._lateness_h = disk, lateness_h

    def do(self, *acts: Claim | Release | Read) -> None:
        """Do these, and wait."""
        self._script += acts
        self._fiber.resume()

    def kill(self) -> None:
        """End it as it stands; its connection is gone."""
        self._fiber.kill()

    def _acts(self) -> Iterator[Claim | Release | Read]:
        while True:
            while self._script:
                yield self._script.pop(0)
            self._fiber.pause()

    def _live(self) -> None:
        source = ScriptSource(self._acts(), NAMES)
        options = IngestOptions(
            allowed_lateness_us=self._lateness_h * HOUR_US, idle_hold_us=HOUR_US, split_graphs=SPLIT
        )
        with self._disk.open_writer(Trouble(), lambda _: None) as writer:
            Ingest(source, writer, options).run()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n_members=st.integers(1, 3),
    size=st.integers(1, 40),
    lateness_h=st.sampled_from([0, 2, 50]),
)
def test_any_share_of_a_log_over_processes_comes_to_the_same(
    seed: int, n_members: int, size: int, lateness_h: int
) -> None:
    draw = random.Random(seed)
    dealt = deal(make_log(seed, 120), draw, disorder_h=12)
    left = {name: list(events) for name, events in dealt.items()}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        disk = Disk(Path(folder) / "shared.db", shared=True, now_us=lambda: 0)
        members = []
        for _ in range(n_members):
            members.append(Member(disk, lateness_h))
            ends.callback(members[-1].kill)
        for number, name in enumerate(NAMES):
            members[number % n_members].has.add(name)
        for member in members:
            member.do(Claim(sorted(member.has)))
        while any(left.values()):
            at_ = draw.randrange(n_members)
            if draw.random() < 0.05:  # it dies, and another takes over a while later
                members[at_].kill()
                has, members[at_] = members[at_].has, Member(disk, lateness_h)
                ends.callback(members[at_].kill)
                members[at_].has = has
                members[at_].do(Claim(sorted(has)))
            name = draw.choice(sorted(members[at_].has) or [""])
            if draw.random() < 0.1 and name:  # a partition is handed over
                other = draw.choice(members)
                members[at_].do(Release([name]))
                members[at_].has.discard(name)
                other.do(Claim([name]))
                other.has.add(name)
            elif name:
                n = draw.randint(1, size)
                batch, left[name] = left[name][:n], left[name][n:]
                members[at_].do(Read(name, batch))
        expected, late = counted(dealt, lateness_h=lateness_h)
        alone = Path(folder) / "alone.db"
        run(alone, [("", sorted(expected, key=lambda event: event.ts_us))])
        # The step of the last events is still open where others may come.
        closed = [row for row in metrics_of(alone) if int(str(row[1])) < step_start_us(end_us(dealt), HOUR_US)]
        assert metrics_of(disk.path) == closed
        assert query(disk.path, "SELECT sum(late) FROM partitions") == [(late,)]


class TestRefusals:
    """Two processes, one after the other, so that the first one's partitions are still its own."""

    @staticmethod
    def run_both(folder: Path, first: frozenset[str], second: frozenset[str]) -> None:
        disk = Disk(folder / "s.db", shared=True, now_us=lambda: 0)
        with disk.open_writer(Trouble(), lambda _: None) as one, disk.open_writer(Trouble(), lambda _: None) as two:
            for writer, name, split in ((one, "0", first), (two, "1", second)):
                script = [Claim([name]), Read(name, [at(1, "a", "b")])]
                Ingest(ScriptSource(script, NAMES), writer, IngestOptions(split_graphs=split)).run()

    def test_a_graph_that_is_not_split_names_the_option(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="come to two processes") as caught:
            self.run_both(tmp_path, frozenset(), frozenset())
        assert "--split g" in str(caught.value.fix)

    def test_a_process_without_the_option_is_kept_out(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="'g' is split") as caught:
            self.run_both(tmp_path, SPLIT, frozenset())
        assert "--split g" in str(caught.value.fix)

    def test_one_that_comes_to_it_is_kept_out_by_it(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="for itself alone") as caught:
            self.run_both(tmp_path, frozenset(), SPLIT)
        assert "--split g" in str(caught.value.fix)

    def test_it_is_remembered(self, tmp_path: Path) -> None:
        self.run_both(tmp_path, SPLIT, SPLIT)
        # All have ended; the graph is still split.
        with pytest.raises(StoreError, match="'g' is split"):
            ingest_list(ScriptSource([Claim(NAMES), Read("0", [at(2, "a", "b")])], NAMES), tmp_path / "s.db")


def test_an_older_log_can_be_added_once_nobody_feeds_the_graph(tmp_path: Path) -> None:
    older = [at(1, "x", "y"), at(2, "a", "b")]
    there = [Claim(NAMES), *(Read(name, [at(1, "a", "b"), at(90, "a", "b")]) for name in NAMES)]
    disk = Disk(tmp_path / "s.db", shared=True, now_us=lambda: 0)
    with disk.open_writer(Trouble(), lambda _: None) as live, disk.open_writer(Trouble(), lambda _: None) as other:
        Ingest(ScriptSource(there, NAMES), live, IngestOptions(split_graphs=SPLIT)).run()
        options = IngestOptions(split_graphs=SPLIT, backfill=True)
        backfill = ScriptSource([Claim([""]), Read("", older)], name="older")
        with pytest.raises(StoreError, match="another process reads") as caught:
            Ingest(backfill, other, options).run()
        assert "for a backfill, stop it meanwhile" in str(caught.value.fix)
        live.close()
        Ingest(backfill, other, options).run()
    alone = tmp_path / "alone.db"
    log = [*older, *(event for _ in NAMES for event in (at(1, "a", "b"), at(90, "a", "b")))]
    run(alone, [("", sorted(log, key=lambda event: event.ts_us))])
    assert metrics_of(tmp_path / "s.db") == [row for row in metrics_of(alone) if int(str(row[1])) < 90 * HOUR_US]


def test_a_graph_becomes_split_where_one_process_fed_it(tmp_path: Path) -> None:
    alone = [Claim(NAMES), Read("0", [at(1, "a", "b"), at(5, "a", "b")]), Read("1", [at(5, "a", "b")])]
    ingest_list(ScriptSource(alone, NAMES), tmp_path / "s.db")
    TestRefusals.run_both(tmp_path, SPLIT, SPLIT)


def test_a_part_by_type_is_split_with_its_graph(tmp_path: Path) -> None:
    options = {"split_graphs": SPLIT, "split_by_type": True}
    script = [Claim(NAMES), *(Read(name, [at(hour, "a", "b", "g", "like") for hour in (1, 3)]) for name in NAMES)]
    ingest_list(ScriptSource(script, NAMES), tmp_path / "s.db", **options)
    assert query(tmp_path / "s.db", "SELECT name, events FROM graphs ORDER BY name") == [("g", 4), ("g:like", 4)]
    with pytest.raises(StoreError, match="is split"):
        ingest_list(ScriptSource(script, NAMES), tmp_path / "s.db", split_by_type=True)
