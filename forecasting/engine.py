"""The engine: a graph's history encoded once, then forecasts rolled out from its state in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from forecasting.forms import form_of
from forecasting.history import read_history
from forecasting.resolving import CalibratedOn, Resolved, calibrated_on, is_own, resolve, stamp_of
from infra.settings import Settings
from infra.steps import check_end
from models.contract import History, PathChunk
from models.futures import roll_out
from stream.store import open_reader


@dataclass(frozen=True, slots=True)
class ForecastRun:
    """A forecast under way.

    Attributes:
        graph: the graph.
        step_us: its step size in microseconds.
        first_step_us: start of forecast step 0, the one after the last snapshot.
        model_name: which model answers.
        degraded_reason: why another than the graph's model answers; None where nothing is wrong.
        card: the model's card; empty for a floor.
        calibrated_until_step: how many steps ahead intervals were found to hold what they say; None for a floor.
        skill_until_step: up to which step forecasts were found to be better than the climate, likewise.
        calibrated_on: on which graphs both were found: this one if the model is its own, else others; None for a floor.
        notes: what the reader should know: whose model answers, and why.
        chunks: the forecast and its sample paths, computed as they are read.
    """

    graph: str
    step_us: int
    first_step_us: int
    model_name: str
    degraded_reason: str | None
    card: dict[str, Any]
    calibrated_until_step: int | None
    skill_until_step: int | None
    calibrated_on: CalibratedOn | None
    notes: list[str]
    chunks: Iterator[PathChunk]


@dataclass(slots=True)
class _Encoded:
    """A model and its state at the end of a history; what an engine keeps for each graph."""

    found: Resolved
    state: Any
    steps: int
    notes: list[str]


class Engine:
    """Answers forecasts for the graphs of a store.

    A graph is encoded at its first forecast; later ones start from its state and observe new snapshots alone.

    Args:
        settings: store and models.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._encoded: dict[str, _Encoded] = {}
        self._reader = open_reader(settings.store.url, settings.influxdb)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the store."""
        self._reader.close()

    def forecast(
        self,
        graph: str,
        *,
        horizon_steps: int,
        seed: int = 0,
        n_paths: int = 0,
    ) -> ForecastRun:
        """Return the forecast of the next `horizon_steps`.

        The graph's own model answers, else the general one; the notes say which, and why if it is a floor.

        Args:
            graph: which graph.
            horizon_steps: how far, at least 1.
            seed: seed of the sample paths that totals are counted on; the same seed gives the same numbers.
            n_paths: sample paths that come with it.

        Raises:
            StoreError: there is no such graph, or it has no snapshot.
            UsageError: the forecast would end behind the year 9999.
            ModelError: the graph's own model is damaged or of another step size, or the history cannot be read by any.
        """
        history = read_history(self._reader, graph)
        first_step_us = history.start_us + len(history) * history.step_us
        check_end(horizon_steps, first_step_us, history.step_us)
        encoded = self._encode(graph, history)
        found, calibration = encoded.found, encoded.found.calibration
        return ForecastRun(
            graph=graph,
            step_us=history.step_us,
            first_step_us=first_step_us,
            model_name=found.model.name,
            degraded_reason=found.reason,
            card=found.card,
            calibrated_until_step=None if calibration is None else calibration.calibrated_until_step,
            skill_until_step=None if calibration is None else calibration.skill_until_step,
            calibrated_on=calibrated_on(found),
            notes=list(encoded.notes),
            chunks=self._roll_out(encoded, horizon_steps, seed, n_paths),
        )

    def _encode(self, graph: str, history: History) -> _Encoded:
        encoded = self._encoded.get(graph)
        stamp = stamp_of(self._settings.models.directory, graph, history.step_us, len(history))
        if encoded is None or encoded.steps > len(history) or encoded.found.stamp != stamp:
            encoded = self._resolve(graph, history)
        new = history.values[encoded.steps :]
        encoded.state = encoded.found.model.update(encoded.state, new)
        encoded.steps = len(history)
        self._encoded[graph] = encoded
        return encoded

    def _resolve(self, graph: str, history: History) -> _Encoded:
        found = resolve(self._settings.models.directory, graph, history.step_us, len(history), strict=True)
        notes = [] if found.reason is None else [f"{found.reason}: {found.model.name} answers instead"]
        if found.reason is None and found.digest is not None and not is_own(found):
            notes.append(f"{graph!r} has no model of its own: the general one answers (graphtide train {graph})")
        if (form := form_of(found.card)) is not None:
            notes.append(f"a smaller form of the model answers: {form}")
        state = found.model.start(history.step_us, history.start_us)
        return _Encoded(found, state, 0, notes)

    def _roll_out(self, encoded: _Encoded, horizon_steps: int, seed: int, n_paths: int) -> Iterator[PathChunk]:
        # The state is a value: snapshots that arrive while this runs do not move it.
        return roll_out(
            encoded.found.model,
            encoded.state,
            horizon_steps,
            n_paths=n_paths,
            chunk_steps=self._settings.forecast.chunk_steps,
            seed=seed,
        )
