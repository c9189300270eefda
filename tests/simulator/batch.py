"""Many seeds, on several processes of this machine."""

import multiprocessing
from collections.abc import Generator, Sequence

from tests.simulator.run import Outcome, Simulator

# Seeds that a worker takes at once; for each chunk it makes the tables of an empty store.
_CHUNK = 40


def outcomes(seeds: Sequence[int], *, processes: int = 1, bug: str | None = None) -> Generator[Outcome, None, None]:
    """Run seeds and yield their outcomes in order.

    Args:
        seeds: which.
        processes: how many of the machine's to use; with one, it is this one.
        bug: the name of a bug that is planted first.
    """
    if processes == 1 or len(seeds) == 1:
        yield from _run((seeds, bug))
        return
    chunks = [(seeds[at : at + _CHUNK], bug) for at in range(0, len(seeds), _CHUNK)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.imap(_run_list, chunks):
            yield from found


def _run_list(work: tuple[Sequence[int], str | None]) -> list[Outcome]:
    return list(_run(work))


def _run(work: tuple[Sequence[int], str | None]) -> Generator[Outcome, None, None]:
    seeds, bug = work
    with Simulator(bug) as simulator:
        for seed in seeds:
            yield simulator.run(seed)
