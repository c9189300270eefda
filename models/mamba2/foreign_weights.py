"""Weights in the layouts of others: the state dicts of Hugging Face `transformers` and of `mamba_ssm`.

Tensors of a mixer have the same names and layouts everywhere; what differs is what stands before them (`backbone.`,
`model.`) and the name of the embedding. Embeddings and language heads are no part of a `Mamba2Core`; they are handed
through. Files are the matter of `models.pretrained`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.mamba2.config import Mamba2Config
from models.mamba2.foreign_config import PLAIN_TRAITS, ForeignTraits, InteropError, Layout
from models.mamba2.kernels.contract import core_shapes

_PREFIXES = ("", "backbone.", "model.", "model.backbone.")
_EMBEDDING = {"huggingface": "embeddings.weight", "mamba_ssm": "embedding.weight"}
_LM_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True, eq=False)
class ForeignWeights:
    """What a foreign state dict holds, by our names.

    Attributes:
        core: float32 tensors that `Mamba2Core.load_state_dict` takes.
        embedding_VD: token embeddings, as they were; None if there are none.
        lm_head_VD: a language head of its own, as it was; None if there is none or it is tied.
        tied: whether the embedding is the language head too.
    """

    core: dict[str, Tensor]
    embedding_VD: Tensor | None = None
    lm_head_VD: Tensor | None = None
    tied: bool = False


def weights_from(
    tensors: Mapping[str, Tensor], config: Mamba2Config, traits: ForeignTraits = PLAIN_TRAITS
) -> ForeignWeights:
    """Return foreign tensors by our names, whatever stands before them.

    Raises:
        InteropError: a tensor is missing, unknown, of another shape, holds a value that is not finite, or contradicts
            the traits.
    """
    prefix = _find_prefix(tensors)
    tables = {prefix + name for name in _EMBEDDING.values()} | {_LM_HEAD}
    expected = core_shapes(config)
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name not in tables}
    biases = [name for name in expected if name.endswith("conv1d.bias")]
    if not traits.conv_bias:
        if extra := [name for name in biases if name in found]:
            raise InteropError(f"{prefix}{extra[0]} is there, but the configuration switches biases of conv1d off")
        # A convolution without a bias is one with a bias of zero.
        found |= {name: torch.zeros(expected[name]) for name in biases}
    if odd := sorted(expected.keys() ^ found.keys()):
        lack = "is missing from" if odd[0] in expected else "is unknown in"
        why = "; use_conv_bias (conv_bias in mamba_ssm) is not false" if odd[0] in biases else ""
        raise InteropError(f"{prefix}{odd[0]} {lack} the weights of {config.n_layers} Mamba2 layers{why}")
    core = {name: _core_tensor(prefix + name, found[name], shape) for name, shape in expected.items()}
    embeddings = [tensors[prefix + name] for name in _EMBEDDING.values() if prefix + name in tensors]
    if len(embeddings) > 1:
        raise InteropError(f"there are two embeddings: {' and '.join(sorted(tables - {_LM_HEAD}))}")
    weights = ForeignWeights(core, embeddings[0] if embeddings else None, tensors.get(_LM_HEAD))
    check_vocabulary(weights, config)
    return _tie(weights) if traits.tied else weights


def check_vocabulary(weights: ForeignWeights, config: Mamba2Config) -> None:
    """Refuse an embedding and a language head that no model of this configuration can have.

    Raises:
        InteropError: one is of another shape or not finite, they differ in their tokens, or contradict `tied`.
    """
    embedding_VD, head_VD = weights.embedding_VD, weights.lm_head_VD
    for name, table_VD in (("the embedding", embedding_VD), (_LM_HEAD, head_VD)):
        if table_VD is not None:
            _check_table(name, table_VD, config.d_model)
    if embedding_VD is not None and head_VD is not None and len(embedding_VD) != len(head_VD):
        raise InteropError(f"the embedding has {len(embedding_VD)} tokens, {_LM_HEAD} has {len(head_VD)}")
    if weights.tied and (embedding_VD is None or head_VD is not None):
        raise InteropError("a tied language head is the embedding: there must be embedding_VD and no lm_head_VD")


def weights_to(weights: ForeignWeights, layout: Layout) -> dict[str, Tensor]:
    """Return our weights by foreign names: of the bare backbone, or with `backbone.` where there is a language head.

    `mamba_ssm` has no bare backbone; its names always begin with `backbone.`, and there always is a head.
    """
    whole = layout is Layout.MAMBA_SSM or weights.tied or weights.lm_head_VD is not None
    prefix = "backbone." if whole else ""
    tensors = {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in weights.core.items()}
    if weights.embedding_VD is not None:
        tensors[prefix + _EMBEDDING[layout]] = weights.embedding_VD.detach().cpu().contiguous()
    head_VD = weights.lm_head_VD
    if layout is Layout.MAMBA_SSM and head_VD is None:
        head_VD = weights.embedding_VD
    if head_VD is not None:
        # A copy: files of tensors that share memory are refused.
        tensors[_LM_HEAD] = head_VD.detach().cpu().clone()
    return tensors


def _core_tensor(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise InteropError(f"{name} has shape {tuple(tensor.shape)}, the configuration needs {shape}")
    _check_numbers(name, tensor)
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _check_table(name: str, table_VD: Tensor, d_model: int) -> None:
    if table_VD.dim() != 2 or table_VD.shape[1] != d_model or len(table_VD) == 0:
        raise InteropError(f"{name} has shape {tuple(table_VD.shape)}, the configuration needs (tokens, {d_model})")
    _check_numbers(name, table_VD)


def _check_numbers(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InteropError(f"{name} is {tensor.dtype}, not a floating-point tensor")
    if not bool(torch.isfinite(tensor.detach().to(torch.float32)).all()):
        raise InteropError(f"{name} holds values that are not finite")


def _tie(weights: ForeignWeights) -> ForeignWeights:
    """Return weights whose embedding is their head; either may be the one that the file holds."""
    tables = [table_VD for table_VD in (weights.embedding_VD, weights.lm_head_VD) if table_VD is not None]
    if len(tables) == 2 and (tables[0].dtype != tables[1].dtype or not torch.equal(*tables)):
        # Hugging Face would keep both, mamba_ssm would put the head in the place of the embedding.
        raise InteropError(
            f"{_LM_HEAD} differs from the embedding, but the configuration ties them (tie_word_embeddings, "
            "in mamba_ssm tie_embeddings; false if both are meant)"
        )
    return ForeignWeights(weights.core, tables[0] if tables else None, tied=bool(tables))


def _find_prefix(tensors: Mapping[str, Tensor]) -> str:
    for prefix in _PREFIXES:
        if f"{prefix}norm_f.weight" in tensors:
            return prefix
    near = next((name for name in tensors if re.search(r"(^|\.)layers\.\d+\.", name)), next(iter(tensors), "nothing"))
    raise InteropError(f"no norm_f.weight, with or without {' '.join(_PREFIXES[1:])}, beside {near}")
