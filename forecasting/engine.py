"""The engine: a graph's history encoded once, then forecasts rolled out from its state in chunks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from forecasting.history import read_history
from forecasting.training import checkpoint_folder, forecaster_config, forecaster_of, train_graph, training_config
from infra.errors import GraphtideError, ModelError
from infra.settings import Settings
from infra.steps import format_duration
from models import checkpoint
from models.baselines import ProfileLevel
from models.contract import ForecastChunk, History, Model
from models.optimisation import TrainingProgress
from models.seasons import season_steps
from models.training import MIN_SEASONS
from stream.store import open_reader
from stream.store.base import SnapshotReader


class ForecastCancelledError(GraphtideError):
    """The caller asked to stop; chunks that were delivered stand."""


@dataclass(frozen=True, slots=True)
class ForecastRun:
    """A forecast under way.

    Attributes:
        graph: the graph.
        step_us: its step size in microseconds.
        first_step_us: start of forecast step 0, the one after the last snapshot.
        model_name: which model answers.
        degraded: True where a floor answers because no model could.
        card: the model's card; empty for a floor.
        notes: what the reader should know: a model trained on the way, a floor that answers.
        chunks: the forecast, computed as it is read.
    """

    graph: str
    step_us: int
    first_step_us: int
    model_name: str
    degraded: bool
    card: dict[str, Any]
    notes: list[str]
    chunks: Iterator[ForecastChunk]


@dataclass(slots=True)
class _Encoded:
    """A model and its state at the end of a history; what an engine keeps for each graph."""

    model: Model[Any]
    state: Any
    steps: int
    degraded: bool = False
    card: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Engine:
    """Answers forecasts for the graphs of a store.

    A graph is encoded at its first forecast; later ones start from its state and observe new snapshots alone.

    Args:
        settings: store, models, forecaster and training.
        reader: snapshots; opened from the settings if not given.
        on_training: told about the progress of a training that a first forecast needs.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reader: SnapshotReader | None = None,
        on_training: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self._settings = settings
        self._on_training = on_training
        self._encoded: dict[str, _Encoded] = {}
        self._closing = ExitStack()
        self._reader = reader or self._closing.enter_context(open_reader(settings.store.url, settings.influxdb))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the store, if the engine opened it."""
        self._closing.close()

    def forecast(
        self,
        graph: str,
        *,
        horizon_steps: int,
        seed: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ForecastRun:
        """Return the forecast of the next `horizon_steps`.

        Trains a model first where the graph has none, which is said in the notes.

        Args:
            graph: which graph.
            horizon_steps: how far, at least 1.
            seed: seed of the sample paths that totals are counted on; the same seed gives the same numbers.
            on_progress: called after every chunk with the steps done and to do.
            cancelled: asked before every chunk.

        Raises:
            StoreError: there is no such graph, or it has no snapshot.
            ModelError: its checkpoint is corrupt or belongs to another step size.
            ForecastCancelledError: from the chunks, when `cancelled` says so.
        """
        history = read_history(self._reader, graph)
        encoded = self._encode(graph, history)
        return ForecastRun(
            graph=graph,
            step_us=history.step_us,
            first_step_us=history.start_us + len(history) * history.step_us,
            model_name=encoded.model.name,
            degraded=encoded.degraded,
            card=encoded.card,
            notes=list(encoded.notes),
            chunks=self._roll_out(encoded, horizon_steps, seed, on_progress, cancelled),
        )

    def _encode(self, graph: str, history: History) -> _Encoded:
        encoded = self._encoded.get(graph)
        if encoded is None or encoded.steps > len(history):
            encoded = self._resolve(graph, history)
        new = history.values[encoded.steps :]
        encoded.state = encoded.model.update(encoded.state, new)
        encoded.steps = len(history)
        self._encoded[graph] = encoded
        return encoded

    def _resolve(self, graph: str, history: History) -> _Encoded:
        settings = self._settings
        folder = checkpoint_folder(settings.models.directory, graph)
        found, notes = checkpoint.load(folder), []
        if found is None:
            needed = MIN_SEASONS * season_steps(history.step_us)
            if len(history) < needed:
                floor = ProfileLevel()
                notes.append(
                    f"{len(history)} steps are too few to train on ({needed} are needed): "
                    f"the floor {floor.name} answers instead of a model"
                )
                return _Encoded(floor, floor.start(history.step_us, history.start_us), 0, degraded=True, notes=notes)
            config = training_config(settings)
            found = train_graph(
                history, graph, folder, forecaster_config(settings), config, on_progress=self._on_training
            )
            notes.append(f"there was no model for {graph!r}: trained one in {found.card['scores']['elapsed_s']:.0f} s")
        step_us = found.card["data"][0]["step_us"]
        if step_us != history.step_us:
            raise ModelError(
                f"the model was trained on steps of {format_duration(step_us)}, "
                f"but {graph!r} has steps of {format_duration(history.step_us)}",
                place=str(folder),
                fix=f"train one for these steps: graphtide train {graph}",
            )
        model = forecaster_of(found)
        return _Encoded(model, model.start(history.step_us, history.start_us), 0, card=found.card, notes=notes)

    def _roll_out(
        self,
        encoded: _Encoded,
        horizon_steps: int,
        seed: int,
        on_progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> Iterator[ForecastChunk]:
        # The state is a value: snapshots that arrive while this runs do not move it.
        model, state = encoded.model, encoded.state
        done = 0
        chunks = model.rollout(state, horizon_steps, chunk_steps=self._settings.forecast.chunk_steps, seed=seed)
        while done < horizon_steps:
            if cancelled is not None and cancelled():
                raise ForecastCancelledError(f"cancelled after {done} of {horizon_steps} steps")
            chunk = next(chunks)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done, horizon_steps)
            yield chunk
