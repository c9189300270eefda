"""Short-range rollouts: one a state, seed and number of paths, extended by blocks; every answer is a part of one."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from forecasting.live import LiveState
from models.contract import PathChunk
from models.futures import joined, part, roll_out


@dataclass(slots=True)
class _Rollout:
    chunks: Iterator[PathChunk]
    batch: int
    done: list[PathChunk] = field(default_factory=list)
    steps: int = 0
    answered: PathChunk | None = None


class Rollouts:
    """Keeps what was rolled out of the latest states. For one thread.

    The blocks do not depend on the horizon that is asked for, so that the first steps of a longer forecast are the
    shorter one to the last bit.

    Args:
        block_steps: steps rolled out at once.
        max_steps: the longest horizon.
        keep: rollouts that are kept, at least 1.
    """

    def __init__(self, *, block_steps: int, max_steps: int, keep: int) -> None:
        self._block_steps = block_steps
        self._max_steps = max_steps
        self._keep = keep
        self._rollouts: OrderedDict[tuple[tuple[str, str, str], int, int], _Rollout] = OrderedDict()

    def steps(
        self, live: LiveState, horizon: int, *, seed: int, n_paths: int = 0, batch: int = 0, anew: bool = False
    ) -> PathChunk:
        """Return the next `horizon` steps, at most `max_steps`, with `n_paths` sample paths.

        The same object is returned while a rollout is asked for the same horizon.

        Args:
            live: the state.
            horizon: how many steps.
            seed: of what is drawn.
            n_paths: how many sample paths.
            batch: of requests that are answered together; it rises.
            anew: only what was rolled out in this batch will do.

        Raises:
            ModelError: the model made no forecast.
        """
        key = live.key, seed, n_paths
        found = self._rollouts.get(key)
        if found is None or (anew and found.batch != batch):
            for old in [old for old in self._rollouts if old[0][0] == live.graph and old[0] != live.key]:
                # An older state of the graph will hardly be asked for again.
                del self._rollouts[old]
            chunks = roll_out(
                live.model, live.state, self._max_steps, n_paths=n_paths, chunk_steps=self._block_steps, seed=seed
            )
            found = self._rollouts[key] = _Rollout(chunks, batch)
        self._rollouts.move_to_end(key)
        while len(self._rollouts) > self._keep:
            self._rollouts.popitem(last=False)
        try:
            while found.steps < horizon:
                chunk = next(found.chunks)
                found.done.append(chunk)
                found.steps += len(chunk)
        except BaseException:
            # A generator that failed is exhausted: the next call begins anew.
            del self._rollouts[key]
            raise
        if found.answered is None or len(found.answered) != horizon:
            found.answered = part(joined(found.done), 0, horizon)
        return found.answered
