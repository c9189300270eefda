"""Forecasts for sequences of requests, each about one graph; the state of each is kept from request to request."""

from collections import OrderedDict

import numpy as np

from infra.errors import UsageError
from infra.schema import MAX_HORIZON_STEPS
from infra.steps import step_start_us
from models.contract import FloatArray
from models.forecaster import ForecasterState, MambaForecaster

# As `[forecast] chunk_steps`; it changes no number.
CHUNK_STEPS = 1024
# Floats count whole numbers one by one up to here.
_MOST = 2**53


class Sequences:
    """The states of the sequences that are open, the latest `most` of them.

    Args:
        model: what forecasts.
        most: states that are kept; the one used least recently goes first. Bounds the memory.
    """

    def __init__(self, model: MambaForecaster, *, most: int) -> None:
        self._model = model
        self._most = most
        self._states: OrderedDict[int | str, ForecasterState] = OrderedDict()

    def begin(self, sequence: int | str, step_us: int, start_us: int) -> None:
        """Begin a sequence, or begin it anew, before its first observed step.

        Args:
            sequence: its correlation id.
            step_us: length of a step in microseconds.
            start_us: start of the first step, microseconds since the epoch, UTC.

        Raises:
            UsageError: there is no such step.
        """
        if step_us < 1 or start_us != step_start_us(start_us, step_us):
            raise UsageError(
                f"BEGINS cannot be [{step_us}, {start_us}]",
                fix="give the length of a step and the start of the first, both in microseconds; steps of whole weeks "
                "start on Mondays (UTC), others at multiples of their length",
            )
        self._states[sequence] = self._model.start(step_us, start_us)
        self._states.move_to_end(sequence)
        while len(self._states) > self._most:
            self._states.popitem(last=False)

    def answer(
        self, sequence: int | str, values_TM: FloatArray, horizon_steps: int, seed: int
    ) -> tuple[int, FloatArray, FloatArray]:
        """Observe steps, then forecast.

        Args:
            sequence: which one.
            values_TM: the steps that follow those observed before, T >= 0, metrics in the order of the schema.
            horizon_steps: how far to forecast, at least 1.
            seed: seed of the sample paths that totals are counted on.

        Returns:
            The start of forecast step 0 in microseconds, mean [H, M] and quantiles [H, M, Q].

        Raises:
            UsageError: the sequence is not open, the horizon is too far, or a value is none that a metric has.
            ModelError: the values are of another shape or not finite.
        """
        state = self._states.get(sequence)
        if state is None:
            raise UsageError(
                f"sequence {sequence} is not open here: it was never begun, ended, idle for too long or crowded out",
                fix="send it again from the start: sequence_start, BEGINS and the whole history as VALUES",
            )
        if not 1 <= horizon_steps <= MAX_HORIZON_STEPS:
            raise UsageError(f"HORIZON cannot be {horizon_steps}", fix=f"give 1 to {MAX_HORIZON_STEPS} steps")
        # Nothing like it is in a snapshot, and a state that saw it forecasts nonsense from then on. The model itself
        # refuses what is not finite, and names where it stands.
        if (np.isfinite(values_TM) & ((values_TM < 0) | (values_TM > _MOST))).any():
            raise UsageError(
                f"VALUES cannot be {values_TM.min():g} to {values_TM.max():g}",
                fix=f"give metrics as snapshots have them, from 0 to {_MOST:,}; nothing was observed",
            )
        state = self._model.update(state, values_TM)
        chunks = list(self._model.rollout(state, horizon_steps, chunk_steps=CHUNK_STEPS, seed=seed))
        mean, quantiles = (
            np.ascontiguousarray(np.concatenate(parts))
            for parts in ([chunk.mean for chunk in chunks], [chunk.quantiles for chunk in chunks])
        )
        # Last: who gets an error sends the same steps again.
        self._states[sequence] = state
        self._states.move_to_end(sequence)
        return state.statistics.next_us, mean, quantiles

    def end(self, sequence: int | str) -> None:
        """Forget a sequence, if it is open."""
        self._states.pop(sequence, None)
