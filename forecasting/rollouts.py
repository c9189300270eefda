"""Short-range rollouts: one a state, extended block by block, of which every answer is a part."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from forecasting.live import LiveState
from models.contract import ForecastChunk


@dataclass(slots=True)
class _Rollout:
    chunks: Iterator[ForecastChunk]
    batch: int
    done: list[ForecastChunk] = field(default_factory=list)
    steps: int = 0


class Rollouts:
    """Keeps what was rolled out of the latest states. For one thread.

    The blocks do not depend on the horizon that is asked for, so that the first steps of a longer forecast are the
    shorter one to the last bit.

    Args:
        block_steps: steps rolled out at once.
        max_steps: the longest horizon.
        seed: seed of the sample paths.
        keep: states whose rollout is kept, at least 1.
    """

    def __init__(self, *, block_steps: int, max_steps: int, seed: int, keep: int) -> None:
        self._block_steps = block_steps
        self._max_steps = max_steps
        self._seed = seed
        self._keep = keep
        self._rollouts: OrderedDict[tuple[str, str, str], _Rollout] = OrderedDict()

    def steps(self, live: LiveState, horizon: int, *, batch: int = 0, anew: bool = False) -> ForecastChunk:
        """Return the next `horizon` steps, at most `max_steps`.

        Args:
            live: the state.
            horizon: how many steps.
            batch: of requests that are answered together; it rises.
            anew: only what was rolled out in this batch will do.

        Raises:
            ModelError: the model made no forecast.
        """
        found = self._rollouts.get(live.key)
        if found is None or (anew and found.batch != batch):
            for key in [key for key in self._rollouts if key[0] == live.graph]:
                # An older state of the graph will hardly be asked for again.
                del self._rollouts[key]
            chunks = live.model.rollout(live.state, self._max_steps, chunk_steps=self._block_steps, seed=self._seed)
            found = self._rollouts[live.key] = _Rollout(chunks, batch)
        self._rollouts.move_to_end(live.key)
        while len(self._rollouts) > self._keep:
            self._rollouts.popitem(last=False)
        try:
            while found.steps < horizon:
                chunk = next(found.chunks)
                found.done.append(chunk)
                found.steps += len(chunk)
        except BaseException:
            # A generator that failed is exhausted: the next call begins anew.
            del self._rollouts[live.key]
            raise
        mean = np.concatenate([chunk.mean for chunk in found.done])[:horizon]
        return ForecastChunk(0, mean, np.concatenate([chunk.quantiles for chunk in found.done])[:horizon])
