"""How many threads share a batch of series: found by timing slices of real calls, once for each class of batch.

Results have the same bits on any number of threads and for every cut into calls. So the first slices of a call run on
one number of threads and on a larger one in turn, and the larger one stays if it is clearly faster. Nothing runs that
would not have run anyway, and no call waits for a measurement: a trial costs what its slower slices lose.
"""

import logging
import threading
import time
from collections.abc import Callable

# Where cores are shared, a second thread that gains little now loses at the next moment.
GAIN = 1.2
# Long beside the start of a thread, short beside a call for which threads matter.
SLICE_SECONDS = 0.004
ROUNDS = 3
# Series of a closed loop share each pass over the weights, so a thread with fewer of them reads the weights for few.
CLOSED_SERIES = 8
# What a trial starts with. A piece of a few steps takes another path through the kernels than those of a long call.
FIRST_STEPS = 8
Advance = Callable[[int, int, int], None]
_LOG = logging.getLogger(__name__)


class Callers:
    """Counts the calls that run in this process: only one that runs alone is timed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running = 0
        self.arrived = 0

    def __enter__(self) -> "Callers":
        with self._lock:
            self.running += 1
            self.arrived += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.running -= 1


_CALLERS = Callers()


class Trial:
    """Finds the number of threads for one class of batch.

    Args:
        name: of the class, for the log.
        limit: the most threads to try.

    Attributes:
        chosen: the number so far, 1 at first.
        rival: the larger number that is tried against it; the same number once nothing is left to try.
        slice_steps: steps to time at once; fewer are not worth a second thread.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.chosen = 1
        self.rival = min(2, limit)
        self.slice_steps = FIRST_STEPS
        self._name = name
        self._limit = limit
        self._is_sized = False
        # Seconds for a step of a series, on the chosen number of threads and on the rival.
        self._times: tuple[list[float], list[float]] = ([], [])

    @property
    def is_open(self) -> bool:
        """Whether something is left to try."""
        return self.rival > self.chosen

    @property
    def turn(self) -> int:
        """The number of threads that the next slice is to run on."""
        own, others = self._times
        return self.rival if self._is_sized and len(own) > len(others) else self.chosen

    def took(self, seconds: float, series: int) -> None:
        """Note what a slice of `slice_steps` of so many series took on `turn` threads."""
        if not self._is_sized:
            # This slice also warmed the caches up, so it is compared with none.
            self._is_sized = seconds >= SLICE_SECONDS
            self.slice_steps *= 1 if self._is_sized else 2
            return
        own, others = self._times
        times = others if len(own) > len(others) else own
        times.append(seconds / (series * self.slice_steps))
        best = min(own)
        # Noise favours fewer threads: the usual time of more has to be well below the best time of fewer.
        lost = sum(best < GAIN * other for other in others)
        if lost > ROUNDS // 2:
            self._settle(best / min(others), takes_rival=False)
        elif len(others) == ROUNDS:
            self._settle(best / min(others), takes_rival=True)

    def _settle(self, gain: float, *, takes_rival: bool) -> None:
        _LOG.info(
            "%s: %d threads are up to %.2f times as fast as %d; %s stay",
            self._name,
            self.rival,
            gain,
            self.chosen,
            self.rival if takes_rival else self.chosen,
        )
        if takes_rival:
            self.chosen = self.rival
            self.rival = min(2 * self.chosen, self._limit)
        else:
            self.rival = self.chosen
        self._times = ([], [])


class FixedCall:
    """A call of a stack on a given number of threads."""

    def __init__(self, threads: int, callers: Callers) -> None:
        self.first_threads = threads
        self._callers = callers

    def run(self, begin: int, end: int, advance: Advance) -> None:
        """Run the steps `begin` to `end`: `advance(begin, end, threads)`."""
        with self._callers:
            advance(begin, end, self.first_threads)


class TriedCall:
    """A call of a stack on as many threads as its class of batch has been found to gain from.

    Args:
        series: how many it has.
        trial: of its class.
        cores: that this process may keep busy.
        callers: those of the process.
        clock: seconds that only grow.
    """

    # What a session is made for. More get their memory when they are first asked for.
    first_threads = 1

    def __init__(self, series: int, trial: Trial, cores: int, callers: Callers, clock: Callable[[], float]) -> None:
        self._series = series
        self._trial = trial
        self._cores = cores
        self._callers = callers
        self._clock = clock

    def run(self, begin: int, end: int, advance: Advance) -> None:
        """Run the steps `begin` to `end`, in one or more pieces: `advance(begin, end, threads)`."""
        with self._callers as callers:
            while self._trial.is_open and end - begin >= self._trial.slice_steps:
                arrived = callers.arrived
                if callers.running > 1:
                    break
                begin = self._timed(begin, arrived, advance)
            if begin < end:
                advance(begin, end, self._threads(end - begin))

    def _timed(self, begin: int, arrived: int, advance: Advance) -> int:
        """Run one slice for the trial and return where it ends; nobody else does that now, for nobody else is alone."""
        trial = self._trial
        end = begin + trial.slice_steps
        began = self._clock()
        advance(begin, end, trial.turn)
        seconds = self._clock() - began
        # Beside a call that came meanwhile it says nothing.
        if self._callers.arrived == arrived:
            trial.took(seconds, self._series)
        return end

    def _threads(self, steps: int) -> int:
        if steps < self._trial.slice_steps:
            return 1
        share = self._cores // self._callers.running
        return max(1, min(self._trial.chosen, share))


class Threads:
    """Chooses the threads for the calls of one packed stack; they may come from several threads at once.

    Args:
        forced: threads for every batch, and nothing is measured; None to measure.
        cores: that this process may keep busy.
        callers: those of the process.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        forced: int | None,
        cores: int,
        callers: Callers = _CALLERS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._forced = forced
        self._cores = cores
        self._callers = callers
        self._clock = clock
        self._lock = threading.Lock()
        self._trials: dict[tuple[bool, int], Trial] = {}

    def call(self, series: int, is_closed: bool) -> FixedCall | TriedCall:
        """Return what runs one call; a closed loop feeds back what it gives."""
        if self._forced is not None:
            return FixedCall(min(self._forced, series), self._callers)
        # A class of batch is all that have as many series as a power of two and fewer than twice as many.
        least = 1 << (series.bit_length() - 1)
        limit = min(self._cores, least // CLOSED_SERIES if is_closed else least)
        if limit < 2:
            return FixedCall(1, self._callers)
        name = f"{'closed' if is_closed else 'open'} loops over {least} to {2 * least - 1} series"
        with self._lock:
            trial = self._trials.setdefault((is_closed, least), Trial(name, limit))
        return TriedCall(series, trial, self._cores, self._callers, self._clock)


def describe(forced: int | None, cores: int) -> str:
    """Say how threads are chosen, for `graphtide doctor`."""
    if forced is not None:
        return f"{forced} for every batch of series, as set"
    if cores == 1:
        return "1, for this process may keep one core busy"
    return (
        f"1 for a single series, up to {cores} for a batch if its first calls run {GAIN} times as fast by each doubling"
    )
