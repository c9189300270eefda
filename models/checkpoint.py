"""Checkpoints: weights as safetensors, and a JSON card that says what they are, what they saw and how they scored.

A checkpoint is a folder with `card.json` and the weights file that the card names by its SHA-256 digest. Weights are
written first and the card last, each by an atomic rename, so that a reader finds the old checkpoint or the new one.
Old weights are removed after that: a reader that has the old card by then begins again with the new one. Processes that
save at the same time take turns, so that none removes weights whose card another is about to write.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from infra.errors import ModelError
from infra.file_lock import file_lock
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS, SCHEMA_VERSION
from infra.whole_file import replacing
from models import checkpoint_files
from models.forecaster import ForecasterConfig, ForecasterNet
from models.mamba2.kernels.contract import PRECISIONS
from models.outlook import N_FEATURES
from models.quantisation import decode, encode

# Weights fit one meaning of their inputs: where `models.features` or `models.outlook` changes what it computes, this
# goes up by one.
FORMAT_VERSION = 4
CARD_NAME = checkpoint_files.CARD_NAME
_LOCK_NAME = ".saving.lock"
_RETRAIN = "train again with `graphtide train`, or restore the files from a backup"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A forecaster and its card.

    Attributes:
        net: the weights, in evaluation mode.
        card: what `save` was given, with `format`, `schema`, `architecture`, `precision`, `weights` and `digest`.
    """

    net: ForecasterNet
    card: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, as hexadecimal digits."""
        return str(self.card["digest"])

    @property
    def precision(self) -> str:
        """What the weights are stored in, and what kernels shall run them in; of `kernels.contract.PRECISIONS`."""
        return str(self.card.get("precision", "fp32"))


def save(folder: Path, net: ForecasterNet, card: dict[str, Any], *, precision: str = "fp32") -> Checkpoint:
    """Write a checkpoint, replacing the one that is there.

    Args:
        folder: where to; made if it is missing.
        net: the weights; one that was read in this precision is written as it was.
        card: what else to say: data, seed, scores. JSON-able; the keys that this module writes are added.
        precision: what to store the weights in, see `models.quantisation`.

    Returns:
        What was written. Where the precision rounds, its net still has the weights that were given: `load` it.

    Raises:
        ModelError: the folder cannot be written.
        KernelInputError: there is no such precision.
    """
    weights = save_tensors(encode(net, precision))
    digest = hashlib.sha256(weights).hexdigest()
    name = f"weights-{digest[:16]}.safetensors"
    full = {
        **card,
        "format": FORMAT_VERSION,
        "schema": SCHEMA_VERSION,
        "metrics": list(METRIC_NAMES),
        "quantile_levels": list(QUANTILE_LEVELS),
        "features": N_FEATURES,
        "architecture": net.config.as_json(),
        "weights": name,
        "digest": digest,
    }
    full.pop("precision", None)
    if precision != "fp32":
        full["precision"] = precision
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / _LOCK_NAME):
            _write(folder / name, weights)
            _write(folder / CARD_NAME, (json.dumps(full, indent=2, sort_keys=True) + "\n").encode())
            for old in folder.glob("weights-*.safetensors"):
                if old.name != name:
                    old.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot write the checkpoint: {error.strerror or error}",
            place=str(folder),
            fix="free space or choose another folder with [models] directory",
        ) from error
    return Checkpoint(net.eval(), full)


def read_card(folder: Path) -> dict[str, Any] | None:
    """Return the card of the checkpoint in `folder`, or None if there is no checkpoint.

    Raises:
        ModelError: the card cannot be read, or was written by a newer version or for another schema.
    """
    path = folder / CARD_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the model card: {error}", place=str(path), fix=_RETRAIN) from error
    try:
        card = json.loads(text)
        found = (card["format"], card["schema"], card["metrics"], card["quantile_levels"], card["features"])
        _ = card["architecture"], card["weights"], card["digest"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"the model card is corrupt: {error!r}", place=str(path), fix=_RETRAIN) from error
    if isinstance(found[0], int) and found[0] > FORMAT_VERSION:
        raise ModelError(
            f"the checkpoint has format {found[0]}, of a newer version; this one reads up to format {FORMAT_VERSION}",
            place=str(path),
            fix="upgrade graphtide, or train again with `graphtide train`",
        )
    needed = (FORMAT_VERSION, SCHEMA_VERSION, list(METRIC_NAMES), list(QUANTILE_LEVELS), N_FEATURES)
    for what, has, needs in zip(
        ("checkpoint format", "metric schema", "metrics", "quantile levels", "features"), found, needed, strict=True
    ):
        if has != needs:
            raise ModelError(
                f"the checkpoint does not fit this version of graphtide: its {what} {has} is not {needs}",
                place=str(path),
                fix=_RETRAIN,
            )
    if card.get("precision", "fp32") not in PRECISIONS:
        raise ModelError(
            f"the model card has the precision {card['precision']!r}; this version reads {', '.join(PRECISIONS)}",
            place=str(path),
            fix="upgrade graphtide, or train again with `graphtide train`",
        )
    return dict(card)


def load(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in `folder`, or None if there is none.

    Raises:
        ModelError: it is corrupt, incomplete, or does not fit this version.
    """
    found = _read(folder)
    if found is None:
        return None
    card, path, weights = found
    if hashlib.sha256(weights).hexdigest() != card["digest"]:
        raise ModelError("the weights are corrupt: their digest is not the card's", place=str(path), fix=_RETRAIN)
    try:
        net = ForecasterNet(ForecasterConfig(**card["architecture"]))
        net.load_state_dict(decode(load_tensors(weights)))
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the weights do not fit the architecture on the card: {str(error).splitlines()[0]}",
            place=str(path),
            fix=_RETRAIN,
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values()):
        raise ModelError("the weights hold values that are not finite", place=str(path), fix=_RETRAIN)
    return Checkpoint(net.eval(), card)


def _read(folder: Path) -> tuple[dict[str, Any], Path, bytes] | None:
    """Return card, weights file and its content as they belong together, also while another process saves.

    Raises:
        ModelError: one of them cannot be read.
    """

    def path_of(card: dict[str, Any]) -> Path:
        return folder / str(card["weights"])

    try:
        found = checkpoint_files.take_together(lambda: read_card(folder), lambda card: path_of(card).read_bytes())
    except OSError as error:
        raise _unreadable(str(error.strerror), error.filename) from error
    if found is None:
        return None
    card, weights = found
    if weights is None:
        raise _unreadable("they are not there", path_of(card))
    return card, path_of(card), weights


def _unreadable(reason: str, place: object) -> ModelError:
    return ModelError(f"cannot read the weights: {reason}", place=str(place), fix=_RETRAIN)


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
