"""Folders of foreign models: `config.json` and weights, as `transformers` and `mamba_ssm` read and write them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from infra.errors import GraphtideError, ModelError
from infra.whole_file import whole_file
from models.mamba2.config import Mamba2Config
from models.mamba2.interop import (
    ForeignWeights,
    InteropError,
    Layout,
    config_from,
    config_to,
    weights_from,
    weights_to,
)

CONFIG_NAME = "config.json"
SAFETENSORS_NAME = "model.safetensors"
# mamba_ssm's `from_pretrained` reads no other.
TORCH_NAME = "pytorch_model.bin"
_INDEX_SUFFIX = ".index.json"
_EXPECTED = "the folder needs config.json and model.safetensors (or pytorch_model.bin) of a Mamba2 model"


@dataclass(frozen=True, slots=True, eq=False)
class Pretrained:
    """A foreign model as ours.

    Attributes:
        config: sizes of the core.
        weights: its tensors by our names, with embedding and language head where there are any.
    """

    config: Mamba2Config
    weights: ForeignWeights


def load_pretrained(folder: Path) -> Pretrained:
    """Read a folder that `transformers` or `mamba_ssm` wrote, sharded or whole.

    Raises:
        ModelError: a file is missing or damaged, or the model has a part that ours lacks.
    """
    config_path = folder / CONFIG_NAME
    fields = _read_json(config_path)
    try:
        config = config_from(fields)
    except InteropError as error:
        raise ModelError(str(error), place=str(config_path), fix="only plain Mamba2 stacks can be read") from error
    path, tensors = _read_weights(folder)
    try:
        return Pretrained(config, weights_from(tensors, config))
    except InteropError as error:
        raise ModelError(str(error), place=str(path), fix=_EXPECTED) from error


def save_pretrained(folder: Path, model: Pretrained, layout: Layout) -> None:
    """Write a folder that `Mamba2Model.from_pretrained` or `MambaLMHeadModel.from_pretrained` reads.

    Where there is no embedding, a vocabulary of one unused token stands in: both sides insist on one.

    Raises:
        ModelError: the other side cannot express the model, or the folder cannot be written.
    """
    weights = model.weights
    if weights.embedding_VD is None:
        weights = ForeignWeights(weights.core, torch.zeros(1, model.config.d_model), weights.lm_head_VD)
    assert weights.embedding_VD is not None
    try:
        fields = config_to(model.config, layout, vocab_size=len(weights.embedding_VD))
    except InteropError as error:
        raise ModelError(str(error), fix="save it in the other layout") from error
    tensors = weights_to(weights, layout)
    if layout is Layout.HUGGINGFACE and weights.lm_head_VD is not None:
        fields["architectures"] = ["Mamba2ForCausalLM"]
    try:
        name = SAFETENSORS_NAME if layout is Layout.HUGGINGFACE else TORCH_NAME
        with whole_file(folder / name) as path:
            if layout is Layout.HUGGINGFACE:
                path.write_bytes(save_safetensors(tensors, metadata={"format": "pt"}))
            else:
                torch.save(tensors, path)
        with whole_file(folder / CONFIG_NAME) as path:
            path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    except GraphtideError as error:
        raise ModelError(error.message, fix=error.fix) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}", fix=_EXPECTED) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}", fix="copy the model again") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path} holds no JSON object", fix="copy the model again")
    return fields


def _read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    for name in (SAFETENSORS_NAME, TORCH_NAME):
        if (folder / name).is_file():
            return folder / name, _read_file(folder / name)
        index_path = folder / (name + _INDEX_SUFFIX)
        if index_path.is_file():
            tensors: dict[str, Tensor] = {}
            for shard in _shards(index_path):
                # A name of an index must not reach outside its folder.
                tensors |= _read_file(folder / Path(shard).name)
            return index_path, tensors
    raise ModelError(f"{folder} holds no weights", fix=_EXPECTED)


def _shards(index_path: Path) -> list[str]:
    """Return the names of the files that an index lists.

    Raises:
        ModelError: the index cannot be read, or does not say which tensor is in which file.
    """
    by_tensor = _read_json(index_path).get("weight_map")
    if not isinstance(by_tensor, dict) or not all(isinstance(name, str) for name in by_tensor.values()):
        raise ModelError(f"{index_path} has no weight_map from tensors to files", fix="copy the model again")
    return sorted(set(by_tensor.values()))


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path.read_bytes())
        # Tensors only: a pickle that would run code is refused.
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}", fix=_EXPECTED) from error
    except Exception as error:
        # There is no end to how reading a damaged pickle fails, and the text of an error may be empty.
        said = [type(error).__name__, *str(error).splitlines()[:1]]
        raise ModelError(f"{path} is damaged: {': '.join(said)}", fix="copy the model again") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise ModelError(f"{path} holds no state dict", fix=_EXPECTED)
    return tensors
