"""One seed from its plan to the verdict."""

import random
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.garbage import rare_collections
from tests.simulator import oracle
from tests.simulator.bugs import BUGS
from tests.simulator.disk import copy_template, make_template
from tests.simulator.faults import Kind, Plan
from tests.simulator.history import make_histories
from tests.simulator.sink import simulated_connections
from tests.simulator.world import World

_MEMORY = Path("/dev/shm")  # a store that is lost with the machine is all that a simulation needs
# New objects until Python looks for cycles among them: more than a world makes and keeps.
_GARBAGE_OBJECTS = 100_000
# No code under test waits for real, so a run that takes this long hangs.
_HANG_S = 60.0


class HangingError(BaseException):
    """A run does not go on; no handler of errors in the code under test takes it for one of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        seed: the run.
        problem: what was wrong, None if nothing was.
        digest: of the trace.
        events: records in the logs.
        struck: the faults that struck.
        commits: how many transactions took effect.
        trace: what happened.
    """

    seed: int
    problem: str | None
    digest: str
    events: int
    struck: tuple[Kind, ...]
    commits: int
    trace: list[str] = field(repr=False)

    @property
    def faults(self) -> int:
        """How many faults struck."""
        return len(self.struck)

    @property
    def replay(self) -> str:
        """The command that repeats the run and shows its trace."""
        return f"python -m tests.simulator --seed {self.seed} --trace"


class Simulator:
    """Runs seeds, one after the other, in a folder of its own.

    Args:
        bug: the name of a bug of `tests.simulator.bugs` that is planted in each run.
    """

    def __init__(self, bug: str | None = None) -> None:
        self._bug: Callable[[], AbstractContextManager[object]] = nullcontext if bug is None else BUGS[bug]
        self._folder = tempfile.TemporaryDirectory(
            prefix="graphtide-sim-", dir=_MEMORY if _MEMORY.is_dir() else None, ignore_cleanup_errors=True
        )
        self._root = Path(self._folder.name)
        make_template(self._root / "template.db")

    def run(self, seed: int) -> Outcome:
        """Run one seed; whatever goes wrong is in the outcome."""
        plan = Plan.of(seed)
        random.seed(seed)  # waits between retries are drawn from the module's own generator
        histories = make_histories(plan)
        store = self._root / "store.db"
        copy_template(self._root / "template.db", store)
        world = World(plan, histories, store)
        problem = None
        try:
            with simulated_connections(), self._bug(), _noticing_hangs():
                world.run()
            expected = oracle.judge(plan, histories)
            oracle.check(expected, oracle.snapshots_of(plan, expected.events), store, world.sink)
        except (Exception, HangingError) as error:  # noqa: BLE001 - whatever escapes the code under test is a finding
            problem = f"{type(error).__name__}: {error}"
            world.trace.note("verdict", problem)
        return Outcome(
            seed,
            problem,
            world.trace.digest(),
            sum(len(history.records) for history in histories),
            tuple(fault.kind for fault in world.struck),
            world.invariants.commits,
            world.trace.lines,
        )

    def __enter__(self) -> Self:
        self._rarely = rare_collections(_GARBAGE_OBJECTS)
        self._rarely.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rarely.__exit__(kind, error, trace)
        self._folder.cleanup()


@contextmanager
def _noticing_hangs() -> Iterator[None]:
    """End what waits for something outside the simulation, unless somebody else has set the alarm for that."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def hangs(number: int, frame: object) -> None:
        raise HangingError("a simulated process waits for something outside the simulation")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, _HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
