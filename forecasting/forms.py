"""Which form of a graph's model stands in its folder: the full one, or a smaller one, the full one kept below."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.errors import ModelError
from models import checkpoint
from models.checkpoint import Checkpoint
from models.forecaster import ForecasterNet

_FULL_NAME = "full"


def form_of(card: Mapping[str, Any]) -> str | None:
    """Return how a model was made smaller and what that cost, in words; None for a full model."""
    found = card.get("compression")
    if found is None:
        return None
    said = found.get("backtest")
    if said is None:
        return f"{found['method']}, which was never compared with the full model"
    return f"{found['method']}, {standing(said)}" + ("" if said["holds"] else "; it was forced")


def standing(said: Mapping[str, Any]) -> str:
    """Return in words how a smaller form stands beside the full model, from the values of a `compression.Verdict`."""
    if said["wql_ratio"] is None:
        return "which could not be compared with the full model, as nothing happened in the steps kept for that"
    text = f"weighted quantile loss {said['wql_ratio']:.4f} of the full model's"
    return text if said["holds"] else f"{text}, over the {1 + said['tolerance']:g} that are allowed"


def full_model(folder: Path) -> Checkpoint | None:
    """Return the full model of a graph's folder, whichever form answers; None if there is no model.

    Raises:
        ModelError: it is damaged, or the full model of the form that answers is gone.
    """
    # Of a smaller form the card alone: its weights may be damaged, and the full model whole.
    card = checkpoint.read_card(folder)
    if card is None or "compression" not in card:
        return checkpoint.load(folder)
    full = checkpoint.load(folder / _FULL_NAME)
    parent = card["compression"]["parent"]
    if full is None or full.digest != parent:
        raise ModelError(
            f"the full model {parent[:16]}, of which a smaller form answers, is gone",
            place=str(folder / _FULL_NAME),
            fix="restore it from a backup, or train again with `graphtide train`",
        )
    return full


def use_smaller(folder: Path, full: Checkpoint, write: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Let a smaller form take the place of a graph's model; the full one is kept.

    Args:
        folder: of the graph.
        full: its full model.
        write: writes the smaller form to a folder.

    Raises:
        ModelError: another model took the place of `full` since it was read, or a folder cannot be written.
    """
    # A form takes minutes to make; a training that ended meanwhile must not be lost to one of the model before.
    now = full_model(folder)
    if now is None or now.digest != full.digest:
        raise ModelError(
            f"the model {full.digest[:16]} was replaced while a smaller form of it was made; nothing was changed",
            place=str(folder),
            fix="run the command again for the model of now",
        )
    # The full model first: killed in between, it is there twice.
    checkpoint.save(folder / _FULL_NAME, full.net, full.card)
    return write(folder)


def use_full(folder: Path) -> Checkpoint | None:
    """Let the full model take its place again; None if there is no model.

    Raises:
        ModelError: the model is a full one already, or cannot be read or written.
    """
    full = full_model(folder)
    if full is None:
        return None
    found = checkpoint.read_card(folder)
    if found is None or "compression" not in found:
        raise ModelError("the model is a full one already", place=str(folder))
    return use_new(folder, full.net, full.card)


def use_new(folder: Path, net: ForecasterNet, card: dict[str, Any]) -> Checkpoint:
    """Let a full model answer, whatever stood in the folder; nothing of a smaller form's full model is left.

    Raises:
        ModelError: the folder cannot be written.
    """
    saved = checkpoint.save(folder, net, card)
    shutil.rmtree(folder / _FULL_NAME, ignore_errors=True)
    return saved
