"""Interleaved timing: every system of a group gets a short turn in every round, so that noise meets all alike.

A turn is a few windows of whole steps. Windows are short, so that on a busy machine some go undisturbed: the minimum
is what a system can do, the median what it did. Standard library only.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from forecasting.bench.processes import PeerError, WorkerProcess, peer_python

Say = Callable[[str], None]
# Of a turn; a window of a system that needs longer for a single step is one step.
WINDOW_S = 0.005
TURN_S = 0.08
# Systems of ours take many steps in a call and keep states in near caches meanwhile; shorter chunks would forbid it.
NATIVE_WINDOW_STEPS = 256
MIN_ROUNDS = 5
# Steps from the zero state whose outputs are compared, and how far they may lie apart.
COMPARED_STEPS = {"rollout": 12, "prefill": 150}


@dataclass(frozen=True, slots=True)
class Lane:
    """One thing that is timed.

    Attributes:
        label: its name in the results of the group.
        system: one of `systems.make_system`, or "floor": the probes, asked of the lane `of`.
        backend, precision: for systems of ours.
        environment: variables of its process.
        tolerance: largest difference from the torch reference, relative to its largest output.
        of: the lane whose stack a floor is measured for.
        chunk_size: of the scan, where it is not that of the group.
    """

    label: str
    system: str
    backend: str = "reference"
    precision: str = "fp32"
    environment: tuple[tuple[str, str], ...] = ()
    tolerance: float = 1e-3
    of: str = ""
    chunk_size: int | None = None

    def request(self, spec: dict[str, Any], task: str) -> dict[str, Any]:
        """Return what a worker is asked to make."""
        own = {} if self.chunk_size is None else {"chunk_size": self.chunk_size}
        return {
            "do": "make",
            "system": self.system,
            "spec": {**spec, **own},
            "task": task,
            "backend": self.backend,
            "precision": self.precision,
        }


@dataclass(slots=True)
class Timing:
    """What was measured of one lane: seconds of a step, or of a whole prefill."""

    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The least disturbed."""
        return min(self.seconds)

    @property
    def usual(self) -> float:
        """The median."""
        return median(self.seconds)


@dataclass(slots=True)
class GroupResult:
    """By label: timings, why the others are missing, and what each process said of itself."""

    timings: dict[str, Timing] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)


def measure_group(
    lanes: list[Lane],
    spec: dict[str, Any],
    task: str,
    *,
    budget_s: float,
    prefill_steps: int = 0,
    say: Say,
) -> GroupResult:
    """Time all lanes on the stack of `spec` in turns, for about `budget_s`.

    Args:
        lanes: what to time.
        spec: `stacks.StackSpec.as_json()`.
        task: "rollout" or "prefill".
        budget_s: time for the rounds; at least `MIN_ROUNDS` (rollout) or two (prefill) are made.
        prefill_steps: length of the sequence.
        say: told what is going on.

    Returns:
        What was measured; a lane that cannot run, or computes something else than the reference, is missing.
    """
    result = GroupResult()
    with ExitStack() as stack:
        workers = _start(lanes, spec, task, stack, result, say)
        turns: dict[str, Callable[[], None]] = {}
        for lane in lanes:
            if lane.label in result.missing:
                continue
            timing = Timing()
            try:
                if lane.system == "floor":
                    turn = _floor_turn(workers.get(lane.of), timing)
                elif task == "prefill":
                    turn = _prefill_turn(workers[lane.label], timing, prefill_steps)
                else:
                    again = lane.request(spec, task) if lane.system == "graphtide" else None
                    turn = _rollout_turn(workers[lane.label], timing, again)
                turn()
            except PeerError as error:
                result.missing[lane.label] = str(error)
                continue
            # The first turn warmed up.
            timing.seconds.clear()
            turns[lane.label] = turn
            result.timings[lane.label] = timing
        _go_round(turns, result, budget_s, MIN_ROUNDS if task == "rollout" else 2)
    return result


def _start(
    lanes: list[Lane], spec: dict[str, Any], task: str, stack: ExitStack, result: GroupResult, say: Say
) -> dict[str, WorkerProcess]:
    """Start a process for each lane and compare what it computes with the torch reference."""
    workers: dict[str, WorkerProcess] = {}
    expected: list[float] | None = None
    reference = Lane("", "torch-reference")
    for lane in [reference, *lanes]:
        if lane.system == "floor":
            continue
        if lane.label:
            say(f"  {lane.label} …")
        try:
            worker = stack.enter_context(WorkerProcess(peer_python(lane.system, say), dict(lane.environment)))
            made = worker.ask(**lane.request(spec, task))
            found = _flat(worker.ask(do="outputs", steps=COMPARED_STEPS[task])["outputs"])
            if expected is None:
                expected = found
                worker.__exit__(None, None, None)
                continue
            _compare(found, expected, lane.tolerance)
        except PeerError as error:
            if lane is reference:
                raise
            result.missing[lane.label] = str(error)
            continue
        workers[lane.label], result.made[lane.label] = worker, made
    return workers


def _compare(found: list[float], expected: list[float], tolerance: float) -> None:
    largest = max(map(abs, expected))
    error = max(abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True)) / largest
    if not error <= tolerance:
        raise PeerError(f"it computes something else: {error:.1e} from the reference, allowed are {tolerance:.0e}")


def _rollout_turn(worker: WorkerProcess, timing: Timing, again: dict[str, Any] | None) -> Callable[[], None]:
    """Return a turn; `again`, for systems of ours, packs the stack anew before each turn.

    Where the pages of the weights lie decides how they share a cache: no one place may decide the result.
    """
    # Twice: the first may load or compile something.
    for _ in range(2):
        (seconds,) = worker.ask(do="run", steps=1, windows=1)["seconds"]
    seconds = min(worker.ask(do="run", steps=4, windows=3)["seconds"]) / 4
    steps = max(1 if again is None else NATIVE_WINDOW_STEPS, round(WINDOW_S / seconds))
    windows = max(2, math.ceil(TURN_S / (steps * seconds)))

    def turn() -> None:
        if again is not None:
            worker.ask(**again)
        answer = worker.ask(do="run", steps=steps, windows=windows)
        # The first window wakes the caches, and carries what the call itself costs.
        timing.seconds.extend(seconds / steps for seconds in answer["seconds"][1:])

    return turn


def _prefill_turn(worker: WorkerProcess, timing: Timing, steps: int) -> Callable[[], None]:
    def turn() -> None:
        timing.seconds.extend(worker.ask(do="run", steps=steps, windows=1)["seconds"])

    return turn


def _floor_turn(worker: WorkerProcess | None, timing: Timing) -> Callable[[], None]:
    if worker is None:
        raise PeerError("the stack whose floor it is cannot be measured")

    def turn() -> None:
        timing.seconds.append(worker.ask(do="floor")["seconds"])

    return turn


def _go_round(turns: dict[str, Callable[[], None]], result: GroupResult, budget_s: float, min_rounds: int) -> None:
    end_s, rounds = time.monotonic() + budget_s, 0
    while turns and (rounds < min_rounds or time.monotonic() < end_s):
        rounds += 1
        for label, turn in list(turns.items()):
            try:
                turn()
            except PeerError as error:
                del turns[label], result.timings[label]
                result.missing[label] = str(error)


def _flat(nested: Any) -> list[float]:
    return [value for part in nested for value in _flat(part)] if isinstance(nested, list) else [nested]
