"""Folders of foreign models: `config.json` and weights, as `transformers` and `mamba_ssm` read and write them."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from infra.errors import GraphtideError, ModelError
from infra.whole_file import whole_file
from models.mamba2.config import Mamba2Config
from models.mamba2.foreign_config import InteropError, Layout, config_from, config_to, detect_layout, traits_from
from models.mamba2.foreign_weights import ForeignWeights, check_vocabulary, weights_from, weights_to

CONFIG_NAME = "config.json"
SAFETENSORS_NAME = "model.safetensors"
# mamba_ssm's `from_pretrained` reads no other.
TORCH_NAME = "pytorch_model.bin"
# Both may lie in a folder while one takes the place of the other; what each side itself reads comes first.
_NAMES = {Layout.HUGGINGFACE: (SAFETENSORS_NAME, TORCH_NAME), Layout.MAMBA_SSM: (TORCH_NAME, SAFETENSORS_NAME)}
_INDEX_SUFFIX = ".index.json"
_EXPECTED = "the folder needs config.json and model.safetensors (or pytorch_model.bin) of a Mamba2 model"
_ONE_MODEL = "config.json and the weights must be those of one Mamba2 model; copy both again"


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
        config, traits, layout = config_from(fields), traits_from(fields), detect_layout(fields)
    except InteropError as error:
        raise ModelError(str(error), place=str(config_path), fix="only plain Mamba2 stacks can be read") from error
    path, tensors = _read_weights(folder, layout)
    try:
        return Pretrained(config, weights_from(tensors, config, traits))
    except InteropError as error:
        raise ModelError(str(error), place=str(path), fix=_ONE_MODEL) from error


def save_pretrained(folder: Path, model: Pretrained, layout: Layout) -> None:
    """Write a folder that `Mamba2Model.from_pretrained` or `MambaLMHeadModel.from_pretrained` reads.

    Where there is no embedding, one of zeros stands in, of a single token or of as many as the head has: both sides
    insist on one. Weights of the model that the folder held before are removed once the new one is whole.

    A save that is cut short leaves the old model or the new one, unless both have one layout but different
    configurations and the process is killed between the two renames at the end.

    Raises:
        ModelError: no model can have these weights, the other side cannot express it, or the folder cannot be written.
    """
    weights = _with_embedding(model, folder)
    own_head = weights.lm_head_VD is not None
    try:
        fields = config_to(
            model.config, layout, vocab_size=_n_tokens(weights.embedding_VD), own_head=own_head, tied=weights.tied
        )
    except InteropError as error:
        raise ModelError(str(error), place=str(folder), fix="save it in the other layout") from error
    content = _serialised(weights_to(weights, layout), layout)
    written = folder / _NAMES[layout][0]
    try:
        # The configuration says which weights are read, so it is the last to take its place, and at once.
        with whole_file(folder / CONFIG_NAME) as config_path:
            config_path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
            with whole_file(written) as path:
                path.write_bytes(content)
    except GraphtideError as error:
        raise ModelError(error.message, fix=error.fix) from error
    _remove_replaced(folder, written)


def _with_embedding(model: Pretrained, folder: Path) -> ForeignWeights:
    weights = model.weights
    try:
        check_vocabulary(weights, model.config)
    except InteropError as error:
        fix = f"give embedding and head one shape, (tokens, {model.config.d_model}), of finite numbers"
        raise ModelError(str(error), place=f"the model to save in {folder}", fix=fix) from error
    if weights.embedding_VD is not None:
        return weights
    return replace(weights, embedding_VD=torch.zeros(_n_tokens(weights.lm_head_VD), model.config.d_model))


def _serialised(tensors: dict[str, Tensor], layout: Layout) -> bytes:
    if layout is Layout.HUGGINGFACE:
        return save_safetensors(tensors, metadata={"format": "pt"})
    # Not straight into the file: torch tells a full disk as an internal error.
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _n_tokens(table_VD: Tensor | None) -> int:
    return 1 if table_VD is None else len(table_VD)


def _remove_replaced(folder: Path, written: Path) -> None:
    """Remove weights that whoever reads the folder could take for the ones just written."""
    old = [folder / name for name in (SAFETENSORS_NAME, TORCH_NAME)]
    for index_path in [path.with_name(path.name + _INDEX_SUFFIX) for path in old]:
        # Shards before their index, which names them should this be cut short.
        old += [*_shards_to_remove(index_path), index_path]
    for path in old:
        try:
            if path != written and path.is_file():
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(
                f"the model is saved, but {path} of the one before cannot be removed: {error.strerror or error}",
                fix="remove it by hand",
            ) from error


def _shards_to_remove(index_path: Path) -> list[Path]:
    if not index_path.is_file():
        return []
    try:
        paths = [index_path.with_name(Path(shard).name) for shard in _shards(index_path)]
    except (ModelError, ValueError):
        # A damaged index names none; the new model does not suffer from that.
        return []
    # An index may name anything, also files that are no weights.
    return [path for path in paths if path.suffix in {".safetensors", ".bin"}]


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


def _read_weights(folder: Path, layout: Layout) -> tuple[Path, dict[str, Tensor]]:
    for name in _NAMES[layout]:
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
