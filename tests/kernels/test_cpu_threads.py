"""How the CPU backend comes by its number of threads: by timing, here on a clock that the tests turn."""

import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from forecasting.doctor import Status, examine
from infra.configuration import load_settings
from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.cpu import backend as cpu_backend
from models.mamba2.kernels.cpu.backend import ISA_VARIABLE, THREADS_VARIABLE, CpuBackend, CpuStack
from models.mamba2.kernels.cpu.cores import usable_cores
from models.mamba2.kernels.cpu.threads import FIRST_STEPS, GAIN, ROUNDS, SLICE_SECONDS, Callers, Threads
from models.mamba2.state import Mamba2State
from tests.kernels.stacks import make_inputs, make_weights

SERIES = 64
LONG = 10_000


class Machine:
    """Runs calls in a time of its own: a step takes what `seconds(threads)` says, and is noted.

    Args:
        cores: that it gives the process.
        seconds: of a step of the batch on so many threads.
        forced: see `Threads`.
    """

    def __init__(self, cores: int, seconds: Callable[[int], float], forced: int | None = None) -> None:
        self.now = 0.0
        self.callers = Callers()
        self.threads = Threads(forced, cores, self.callers, self.read)
        self.runs: list[tuple[int, int, int]] = []
        self.seconds = seconds
        self.clock_reads = 0

    def read(self) -> float:
        self.clock_reads += 1
        return self.now

    def advance(self, begin: int, end: int, threads: int) -> None:
        self.runs.append((begin, end, threads))
        self.now += (end - begin) * self.seconds(threads)

    def call(self, series: int = SERIES, steps: int = LONG, is_closed: bool = True) -> list[tuple[int, int, int]]:
        """Run one call and return its pieces, which hold together."""
        self.runs.clear()
        self.threads.call(series, is_closed).run(0, steps, self.advance)
        ends = [end for _, end, _ in self.runs]
        assert [begin for begin, _, _ in self.runs] == [0, *ends[:-1]]
        assert ends[-1] == steps
        return list(self.runs)


def gains(factor: float) -> Callable[[int], float]:
    """Each doubling of the threads runs so many times as fast."""
    return lambda threads: 1e-3 * threads ** -math.log2(factor)


def settled(machine: Machine, **call: int) -> int:
    """Return on how many threads a call runs after one that was long enough for the trial."""
    machine.call(**call)
    ((_, _, threads),) = machine.call(**call)
    return threads


@pytest.mark.parametrize(
    ("cores", "factor", "threads"),
    [
        (1, 1.9, 1),
        (2, 1.9, 2),
        (2, GAIN + 0.01, 2),
        (2, GAIN - 0.01, 1),
        (2, 0.7, 1),
        (6, 1.9, 6),
        (16, 1.9, 8),  # of 64 series, each thread keeps 8
    ],
)
def test_more_threads_stay_only_where_each_doubling_gains(cores: int, factor: float, threads: int) -> None:
    assert settled(Machine(cores, gains(factor))) == threads


def test_the_second_doubling_has_to_gain_too() -> None:
    times = {1: 1e-3, 2: 0.55e-3, 4: 0.5e-3}
    assert settled(Machine(8, times.__getitem__)) == 2


def test_a_trial_is_made_once_and_what_it_may_lose_is_small() -> None:
    machine = Machine(2, gains(0.25))
    first = machine.call()
    lost = [end - begin for begin, end, threads in first if threads > 1]
    assert len(lost) == ROUNDS // 2 + 1, "it went on after the rival could not win any more"
    assert max(lost) * gains(1)(1) < 2 * max(SLICE_SECONDS, FIRST_STEPS * 1e-3)
    reads = machine.clock_reads
    assert machine.call() == [(0, LONG, 1)]
    assert machine.clock_reads == reads, "a class of batch was measured twice"
    machine.call(series=4 * SERIES)
    assert machine.clock_reads > reads, "another class of batch was not measured"


def test_noise_of_one_slice_decides_nothing() -> None:
    slow = iter([1.0, 1.0, 30.0])

    def noisy(threads: int) -> float:
        return gains(1.9)(threads) * (next(slow, 1.0) if threads == 2 else 1.0)

    assert settled(Machine(2, noisy)) == 2
    lucky = iter([0.1])
    assert settled(Machine(2, lambda threads: gains(1.0)(threads) * (next(lucky, 1.0) if threads == 2 else 1.0))) == 1


def test_slow_slices_of_one_thread_do_not_make_two_look_good() -> None:
    slices = iter([1.0, 1.0, 5.0, 5.0])
    assert settled(Machine(2, lambda threads: 1e-3 * (next(slices, 1.0) if threads == 1 else 1.0))) == 1


@pytest.mark.parametrize(("series", "is_closed"), [(1, True), (1, False), (8, True), (15, True)])
def test_few_series_run_on_one_thread_and_nothing_is_timed(series: int, is_closed: bool) -> None:
    machine = Machine(16, gains(1.9))
    assert machine.call(series=series, is_closed=is_closed) == [(0, LONG, 1)]
    assert machine.clock_reads == 0


def test_a_short_call_runs_on_one_thread_before_and_after_the_trial() -> None:
    machine = Machine(2, gains(1.9))
    short = FIRST_STEPS - 1
    assert machine.call(steps=short) == [(0, short, 1)]
    assert settled(machine) == 2
    assert machine.call(steps=short) == [(0, short, 1)]


def test_a_short_piece_of_a_long_call_runs_on_one_thread() -> None:
    machine = Machine(2, gains(1.9))
    assert settled(machine) == 2
    machine.runs.clear()
    machine.threads.call(SERIES, True).run(0, FIRST_STEPS - 1, machine.advance)
    assert machine.runs == [(0, FIRST_STEPS - 1, 1)]


def test_calls_that_are_too_short_for_a_whole_trial_share_one() -> None:
    machine = Machine(2, gains(1.9))
    for _ in range(2 * ROUNDS + 2):
        machine.call(steps=FIRST_STEPS + 1)
    assert machine.call(steps=FIRST_STEPS + 1) == [(0, FIRST_STEPS + 1, 2)]


def test_a_slice_is_long_beside_the_start_of_a_thread() -> None:
    machine = Machine(2, lambda threads: 1e-6 / threads)
    runs = machine.call(steps=10**6)
    timed = [(end - begin) * 1e-6 for begin, end, threads in runs if threads == 1][-ROUNDS:]
    assert min(timed) >= SLICE_SECONDS
    assert max(timed) < 3 * SLICE_SECONDS


def test_a_forced_number_is_kept_without_a_look_at_the_clock() -> None:
    machine = Machine(1, gains(0.1), forced=3)
    assert machine.call() == [(0, LONG, 3)]
    assert machine.call(steps=1) == [(0, 1, 3)]
    assert machine.call(series=1) == [(0, LONG, 1)]
    assert machine.clock_reads == 0


def test_beside_other_calls_nothing_is_timed_and_the_cores_are_shared() -> None:
    machine = Machine(4, gains(1.9))
    with machine.callers:
        assert machine.call() == [(0, LONG, 1)]
        assert machine.clock_reads == 0
    assert settled(machine) == 4
    with machine.callers:
        assert machine.call() == [(0, LONG, 2)]
        with machine.callers, machine.callers, machine.callers:
            assert machine.call() == [(0, LONG, 1)]


def test_a_slice_during_which_another_call_came_does_not_count() -> None:
    machine = Machine(2, gains(0.5))

    def visited(threads: int) -> float:
        with machine.callers:
            pass
        return gains(1.9)(threads)

    machine.seconds = visited
    machine.call()
    assert len(machine.runs) > 2 * ROUNDS
    machine.seconds = gains(0.5)
    assert settled(machine) == 1


def test_a_call_that_fails_leaves_the_trial_to_the_next() -> None:
    machine = Machine(2, gains(1.9))

    def fail(begin: int, end: int, threads: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        machine.threads.call(SERIES, True).run(0, LONG, fail)
    assert machine.callers.running == 0
    assert settled(machine) == 2


class TestCores:
    @pytest.fixture(autouse=True)
    def eight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
        monkeypatch.setattr(sys, "platform", "linux")

    @pytest.mark.parametrize(
        ("membership", "files", "expected"),
        [
            ("", {}, 8),
            ("0::/", {"cpu.max": "max 100000\n"}, 8),
            ("0::/", {"cpu.max": "250000 100000\n"}, 2),
            ("0::/", {"cpu.max": "50000 100000\n"}, 1),
            ("0::/", {"cpu.max": "3200000 100000\n"}, 8),
            ("0::/", {"cpu.max": "nonsense\n"}, 8),
            ("0::/", {"cpu.max": "100000 0\n"}, 8),
            ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
            ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "400000 100000"}, 3),
            ("0::/../elsewhere\n", {"cpu.max": "400000 100000", "../elsewhere/cpu.max": "100000 100000"}, 4),
            ("0::/\n", {"unified/cpu.max": "500000 100000"}, 5),
            ("4:memory:/\n1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
            ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "600000", "cpu/cpu.cfs_period_us": "100000"}, 6),
            (
                "3:cpu,cpuacct:/docker/1f\n",
                {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
                2,
            ),
            ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ],
    )
    def test_quotas(self, tmp_path: Path, membership: str, files: dict[str, str], expected: int) -> None:
        own = tmp_path / "membership"
        own.write_text(membership)
        for name, text in files.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        assert usable_cores(tmp_path / "groups", own) == expected

    def test_without_control_groups_the_affinity_counts(self, tmp_path: Path) -> None:
        assert usable_cores(tmp_path / "none", tmp_path / "neither") == 8


class Ticks:
    """A clock on which a slice that more threads run takes a tenth: every other one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        # Read at the begin and at the end of a slice.
        if self.reads % 2 == 0:
            self.now += 0.1 if self.reads // 2 % 2 else 1.0
        return self.now


class TestStacks:
    """The real kernels below a clock on which two threads win."""

    config = Mamba2Config(d_model=16, n_layers=2, d_state=4, headdim=8)

    @pytest.fixture(autouse=True)
    def compiled(self, require: Callable[[str, bool, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (ISA_VARIABLE, THREADS_VARIABLE):
            monkeypatch.delenv(name, raising=False)
        reason = CpuBackend().unavailable()
        require("cpu-kernels", reason is None, str(reason))

    def pack(self, monkeypatch: pytest.MonkeyPatch, count: int, feeds_back: bool) -> CpuStack:
        monkeypatch.setattr(cpu_backend, "usable_cores", lambda: count)
        return CpuBackend().pack(make_weights(self.config, n_inputs=3, feeds_back=feeds_back))

    @pytest.mark.parametrize("feeds_back", [False, True])
    def test_a_trial_changes_no_bit(self, monkeypatch: pytest.MonkeyPatch, feeds_back: bool) -> None:
        one, tried = (self.pack(monkeypatch, count, feeds_back) for count in (1, 4))
        monkeypatch.setattr("models.mamba2.kernels.cpu.threads.SLICE_SECONDS", 0.0)
        tried._threads = Threads(None, 4, Callers(), Ticks())
        inputs = make_inputs(make_weights(self.config, n_inputs=3), 37, 300)
        state = Mamba2State.zeros(self.config, 37).map(torch.randn_like)
        expected, after = one.rollout(inputs, state)
        for _ in range(2):
            got, got_after = tried.rollout(inputs, state, chunk_steps=130)
            assert torch.equal(got, expected)
            for ours, theirs in zip(got_after.layers, after.layers, strict=True):
                assert torch.equal(ours.conv_BCK, theirs.conv_BCK)
                assert torch.equal(ours.ssm_BHPN, theirs.ssm_BHPN)
        assert tried._threads._trials[feeds_back, 32].chosen == 4, "the trial was not made"

    def test_callers_at_once_get_the_bits_of_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one, tried = (self.pack(monkeypatch, count, True) for count in (1, 2))
        inputs = make_inputs(make_weights(self.config, n_inputs=3), 32, 400)
        state = Mamba2State.zeros(self.config, 32)
        expected = one.rollout(inputs, state)[0]
        results: list[torch.Tensor] = []

        def call() -> None:
            results.extend(tried.rollout(inputs, state, chunk_steps=50)[0] for _ in range(3))

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(results) == 9
        assert all(torch.equal(result, expected) for result in results)

    def test_the_kernels_are_told_how_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[int] = []

        class Session:
            threads = 0

            def advance(self, *_: object) -> None:
                told.append(self.threads)

        stack = self.pack(monkeypatch, 2, True)
        monkeypatch.setattr(stack, "_threads", Threads(None, 2, Callers(), Ticks()))
        monkeypatch.setattr(stack, "_session", lambda *_: Session())
        monkeypatch.setattr(stack, "_state_of", lambda *_: None)
        inputs = make_inputs(make_weights(self.config, n_inputs=3), 16, 100)
        stack.rollout(inputs, Mamba2State.zeros(self.config, 16))
        assert told == [1, 1, 2, 1, 2, 1, 2, 2]

    @pytest.mark.parametrize(
        ("forced", "count", "said"),
        [("3", 2, "3 for every batch"), (None, 1, "1, for"), (None, 5, "up to 5 for a batch")],
    )
    def test_doctor_says_how_they_are_chosen(
        self, monkeypatch: pytest.MonkeyPatch, forced: str | None, count: int, said: str
    ) -> None:
        monkeypatch.setenv("GRAPHTIDE_BACKEND", "cpu")
        monkeypatch.setattr(cpu_backend, "usable_cores", lambda: count)
        if forced is not None:
            monkeypatch.setenv(THREADS_VARIABLE, forced)
        (found,) = [finding for finding in examine(load_settings()) if finding.name == "threads"]
        assert found.status is Status.OK
        assert said in found.found
