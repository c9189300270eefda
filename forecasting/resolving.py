"""Which model answers for a graph: its own, else the general one, else a floor, and why."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from forecasting.training import checkpoint_folder, forecaster_of
from infra.errors import GraphtideError, ModelError
from infra.steps import format_duration
from models import checkpoint, general_folder
from models.baselines import ProfileLevel
from models.calibration import Calibration
from models.contract import Model
from models.seasons import season_steps

T = TypeVar("T")
# With less than a season behind it, a graph shows nothing that a model could go by.
MIN_SEASONS_OF_GENERAL = 1
# What the answer depends on, beside the store: the files of the graph's own model, and whether its history suffices.
Stamp = tuple[int, int, bool] | tuple[None, None, bool]


class CalibratedOn(StrEnum):
    """On which graphs it was found how far the forecasts of a model hold; answers and files have these values."""

    THIS_GRAPH = "this graph"
    OTHER_GRAPHS = "other graphs"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The model that answers for a graph.

    Attributes:
        model: what to advance and roll out.
        stamp: equal as long as `resolve` would find the same.
        digest: SHA-256 of its weights; None for a floor.
        reason: why this is not the model that was asked for; None where it is.
        card: of the checkpoint; empty for a floor.
        calibration: how far ahead its forecasts hold; None for a floor.
        identity: all that its forecasts depend on: a digest of the card, weights and calibration, or the floor's name.
    """

    model: Model[Any]
    stamp: Stamp
    digest: str | None = None
    reason: str | None = None
    card: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    identity: str = ProfileLevel.name


def resolve(models: Path, graph: str, step_us: int, snapshots: int, *, strict: bool = False) -> Resolved:
    """Return the model of a graph, or what answers for it and why; nothing is trained.

    Args:
        models: folder of the checkpoints.
        graph: which graph.
        step_us: its step size in microseconds.
        snapshots: how many closed steps it has.
        strict: whether a model of the graph's own that cannot be used is an error, and not answered for by another.

    Raises:
        ModelError: the general model is missing or damaged, or, if strict, the graph's own is.
    """
    stamp = stamp_of(models, graph, step_us, snapshots)
    reason = None
    folder = checkpoint_folder(models, graph)
    try:
        found = checkpoint.load(folder)
        if found is not None:
            _check_step(found.card["data"][0]["step_us"], step_us, graph, folder)
            return _of(found, stamp, step_us, None)
    except (GraphtideError, KeyError, IndexError, TypeError, ValueError) as error:
        said = error.message if isinstance(error, GraphtideError) else "its card lacks what the forecaster needs"
        if strict:
            if isinstance(error, GraphtideError):
                raise
            raise ModelError(said, place=str(folder), fix=f"train one anew: graphtide train {graph}") from error
        reason = f"the model of {graph!r} cannot be used: {said}; graphtide train {graph}"
    return _general(stamp, step_us, snapshots, reason)


def is_own(found: Resolved) -> bool:
    """Tell whether the model that answers was made for the graph."""
    return found.digest is not None and "steps_us" not in found.card


def calibrated_on(found: Resolved) -> CalibratedOn | None:
    """Return on which graphs the model that answers was calibrated; None where it was not, as a floor."""
    if found.calibration is None:
        return None
    return CalibratedOn.THIS_GRAPH if is_own(found) else CalibratedOn.OTHER_GRAPHS


def floor(models: Path, graph: str, step_us: int, snapshots: int, reason: str) -> Resolved:
    """Return the floor that answers in the place of a model that failed for `reason`."""
    return Resolved(ProfileLevel(), stamp_of(models, graph, step_us, snapshots), reason=reason)


def no_forecast(graph: str) -> str:
    """Return the reason of a floor that answers as the model's rollout failed; a job that goes on is told by it."""
    return f"the model of {graph!r} made no forecast from this state"


def stamp_of(models: Path, graph: str, step_us: int, snapshots: int) -> Stamp:
    """Return what tells whether a graph has to be resolved again."""
    suffices = snapshots >= needed_steps(step_us)
    try:
        found = (checkpoint_folder(models, graph) / checkpoint.CARD_NAME).stat()
    except OSError:
        return None, None, suffices
    return found.st_mtime_ns, found.st_ino, suffices


def general_model() -> checkpoint.Checkpoint:
    """Return the model that comes with the package.

    Raises:
        ModelError: it is missing or damaged.
    """
    return _there(checkpoint.load(general_folder()))


def general_card() -> dict[str, Any]:
    """Return the card of the model that comes with the package.

    Raises:
        ModelError: it is missing or damaged.
    """
    return _there(checkpoint.read_card(general_folder()))


def why_not_general(card: Mapping[str, Any], step_us: int, snapshots: int) -> str | None:
    """Return why the general model cannot answer for a graph; None where it can.

    Args:
        card: of the general model.
        step_us: step size of the graph in microseconds.
        snapshots: how many closed steps it has.
    """
    steps_us = card["steps_us"]
    needed = needed_steps(step_us)
    if not steps_us[0] <= step_us <= steps_us[-1]:
        return (
            f"the general model was trained on steps of {format_duration(steps_us[0])} to "
            f"{format_duration(steps_us[-1])}, not {format_duration(step_us)}"
        )
    # Not how many there are: every process says the same of a state, whenever it began to follow the graph.
    return f"fewer than {needed} steps are too few for a model" if snapshots < needed else None


def _general(stamp: Stamp, step_us: int, snapshots: int, reason: str | None) -> Resolved:
    found = general_model()
    why = why_not_general(found.card, step_us, snapshots)
    if why is None:
        return _of(found, stamp, step_us, reason)
    return Resolved(ProfileLevel(), stamp, reason="; ".join(filter(None, [reason, why])))


def _there(found: T | None) -> T:
    """Return what was found of the general model."""
    if found is None:
        raise ModelError("the general model is missing", place=str(general_folder()), fix="install graphtide again")
    return found


def _of(found: checkpoint.Checkpoint, stamp: Stamp, step_us: int, reason: str | None) -> Resolved:
    model = forecaster_of(found)
    # The card holds the digest of the weights.
    card = json.dumps(found.card, sort_keys=True).encode()
    identity = hashlib.blake2b(card, digest_size=16).hexdigest()
    return Resolved(model, stamp, found.digest, reason, found.card, model.calibration(step_us), identity)


def needed_steps(step_us: int) -> int:
    """Return how many steps a graph needs for the general model to answer; `step_us` is their size in microseconds."""
    return MIN_SEASONS_OF_GENERAL * season_steps(step_us)


def _check_step(trained_us: int, step_us: int, graph: str, folder: Path) -> None:
    if trained_us != step_us:
        raise ModelError(
            f"the model was trained on steps of {format_duration(trained_us)}, not steps of {format_duration(step_us)}",
            place=str(folder),
            fix=f"train one for these steps: graphtide train {graph}",
        )
