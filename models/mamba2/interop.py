"""Weights and configurations in the layouts of others: Hugging Face `transformers` and `mamba_ssm`.

Tensors of a mixer have the same names and layouts everywhere; what differs is what stands before them (`backbone.`,
`model.`), the name of the embedding and the names in `config.json`. Embeddings and language heads are no part of a
`Mamba2Core`; they are handed through. Files are the matter of `models.pretrained`.

What an equal result needs and the other side does not have is refused: Hugging Face's cached steps and those of
`mamba_ssm` leave out `dt_limit`, so with a limit only whole sequences agree with theirs.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from models.mamba2.config import Mamba2Config, Mamba2ConfigError
from models.mamba2.kernels.contract import core_shapes

# Fixed in mamba_ssm: no configuration of it names another.
MAMBA_SSM_NORM_EPS = 1e-5
_PREFIXES = ("", "backbone.", "model.", "model.backbone.")
_EMBEDDING = {"huggingface": "embeddings.weight", "mamba_ssm": "embedding.weight"}
_LM_HEAD = "lm_head.weight"


class InteropError(ValueError):
    """A foreign configuration or state dict that cannot become ours, or ours theirs; the message names what is odd."""


class Layout(StrEnum):
    """Whose names and files."""

    HUGGINGFACE = "huggingface"
    MAMBA_SSM = "mamba_ssm"


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


@dataclass(frozen=True, slots=True)
class ForeignTraits:
    """What a foreign configuration says of its weights and a `Mamba2Config` has no field for.

    Attributes:
        conv_bias: whether the convolutions have biases.
        tied: whether the embedding is the language head too.
    """

    conv_bias: bool = True
    tied: bool = False


PLAIN_TRAITS = ForeignTraits()


def detect_layout(fields: Mapping[str, Any]) -> Layout:
    """Return whose `config.json` this is.

    Raises:
        InteropError: it is neither's.
    """
    if fields.get("model_type") == "mamba2":
        return Layout.HUGGINGFACE
    if "model_type" not in fields and {"d_model", "n_layer"} <= fields.keys():
        return Layout.MAMBA_SSM
    raise InteropError(
        f"neither a Hugging Face Mamba2 configuration nor one of mamba_ssm: model_type is {fields.get('model_type')!r}"
    )


def config_from(fields: Mapping[str, Any]) -> Mamba2Config:
    """Return our configuration for a foreign `config.json`.

    Raises:
        InteropError: the model has a part that a `Mamba2Core` lacks, or a field is missing or of another type.
    """
    read = {Layout.HUGGINGFACE: _from_huggingface, Layout.MAMBA_SSM: _from_mamba_ssm}[detect_layout(fields)]
    try:
        return read(fields)
    except KeyError as error:
        raise InteropError(f"the configuration has no field {error}") from error
    except (Mamba2ConfigError, TypeError) as error:
        raise InteropError(f"no Mamba2 stack can have this configuration: {error}") from error


def traits_from(fields: Mapping[str, Any]) -> ForeignTraits:
    """Return what a foreign `config.json` says of the weights beside it.

    Raises:
        InteropError: a field is of another type.
    """
    if detect_layout(fields) is Layout.HUGGINGFACE:
        return ForeignTraits(_flag(fields, "use_conv_bias", True), _flag(fields, "tie_word_embeddings", False))
    return ForeignTraits(_flag(_mixer(fields), "conv_bias", True), _flag(fields, "tie_embeddings", True))


def config_to(
    config: Mamba2Config, layout: Layout, *, vocab_size: int = 1, own_head: bool = False, tied: bool = False
) -> dict[str, Any]:
    """Return the fields of a foreign `config.json`, all that matter named; JSON has no infinity, so no default limit.

    A language head is beside the embedding (`own_head`), or is the embedding (`tied`), or there is none.

    Raises:
        InteropError: the other side cannot express the configuration.
    """
    if layout is Layout.HUGGINGFACE:
        kind = "Mamba2ForCausalLM" if own_head or tied else "Mamba2Model"
        return {"architectures": [kind], **_to_huggingface(config, vocab_size), "tie_word_embeddings": tied}
    # A model of mamba_ssm always has a head; without one of its own it is the embedding.
    return {**_to_mamba_ssm(config, vocab_size), "tie_embeddings": not own_head}


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


def _from_huggingface(fields: Mapping[str, Any]) -> Mamba2Config:
    _refuse(fields, "use_bias", False, "biases of in_proj and out_proj")
    activation = fields.get("hidden_act", "silu")
    if activation not in {"silu", "swish"}:
        raise InteropError(f"hidden_act is {activation!r}; only silu is supported")
    config = Mamba2Config(
        d_model=_whole(fields["hidden_size"], "hidden_size"),
        n_layers=_whole(fields["num_hidden_layers"], "num_hidden_layers"),
        d_state=_whole(fields.get("state_size", 128), "state_size"),
        headdim=_whole(fields.get("head_dim", 64), "head_dim"),
        expand=_whole(fields.get("expand", 2), "expand"),
        d_conv=_whole(fields.get("conv_kernel", 4), "conv_kernel"),
        n_groups=_whole(fields.get("n_groups", 8), "n_groups"),
        chunk_size=_whole(fields.get("chunk_size", 256), "chunk_size"),
        dt_min=fields.get("time_step_min", 0.001),
        dt_max=fields.get("time_step_max", 0.1),
        dt_init_floor=fields.get("time_step_floor", 1e-4),
        dt_limit=_limit(fields.get("time_step_limit")),
        norm_eps=fields.get("layer_norm_epsilon", 1e-5),
    )
    heads = fields.get("num_heads", 128)
    if heads != config.n_heads:
        raise InteropError(f"num_heads is {heads}, but expand * hidden_size / head_dim is {config.n_heads}")
    return config


def _to_huggingface(config: Mamba2Config, vocab_size: int) -> dict[str, Any]:
    fields = {
        "model_type": "mamba2",
        "vocab_size": vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "state_size": config.d_state,
        "num_heads": config.n_heads,
        "head_dim": config.headdim,
        "expand": config.expand,
        "conv_kernel": config.d_conv,
        "n_groups": config.n_groups,
        "chunk_size": config.chunk_size,
        "time_step_min": config.dt_min,
        "time_step_max": config.dt_max,
        "time_step_floor": config.dt_init_floor,
        "layer_norm_epsilon": config.norm_eps,
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "residual_in_fp32": True,
        # The tokens that mark an end need not exist: the vocabulary may be a single unused entry.
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if limit := _written_limit(config):
        fields["time_step_limit"] = limit
    return fields


# Fields of `ssm_cfg` that change nothing here: where a model starts from, and how it is run.
_SSM_IGNORED = {"layer", "A_init_range", "conv_init", "use_mem_eff_path", "sequence_parallel", "process_group"}
_SSM_REFUSED: dict[str, tuple[object, str]] = {
    "bias": (False, "biases of in_proj and out_proj"),
    "D_has_hdim": (False, "a skip weight for each channel"),
    "rmsnorm": (True, "a mixer without a gated norm"),
    "norm_before_gate": (False, "a norm before the gate"),
    "d_ssm": (None, "a gated MLP beside the state space"),
}
_SSM_WHOLE_NAMES = {
    "d_state": "d_state",
    "d_conv": "d_conv",
    "expand": "expand",
    "headdim": "headdim",
    "ngroups": "n_groups",
    "chunk_size": "chunk_size",
}
_SSM_NAMES = _SSM_WHOLE_NAMES | {
    "dt_min": "dt_min",
    "dt_max": "dt_max",
    "dt_init_floor": "dt_init_floor",
}


def _from_mamba_ssm(fields: Mapping[str, Any]) -> Mamba2Config:
    mixer = _mixer(fields)
    if mixer.get("layer", "Mamba1") != "Mamba2":
        raise InteropError(f"ssm_cfg.layer is {mixer.get('layer', 'Mamba1')!r}; only Mamba2 is supported")
    if fields.get("d_intermediate") or fields.get("attn_layer_idx"):
        raise InteropError("layers of attention or MLPs between the mixers are not supported")
    _refuse(fields, "rms_norm", True, "LayerNorm between the mixers")
    for name, (only, what) in _SSM_REFUSED.items():
        _refuse(mixer, name, only, what)
    known = _SSM_IGNORED | _SSM_REFUSED.keys() | _SSM_NAMES.keys() | {"conv_bias", "dt_limit"}
    if unknown := sorted(mixer.keys() - known):
        raise InteropError(f"ssm_cfg.{unknown[0]} is unknown")
    sizes: dict[str, Any] = {"d_state": 128, "chunk_size": 256}
    for theirs, ours in _SSM_NAMES.items():
        if theirs in mixer:
            sizes[ours] = _whole(mixer[theirs], theirs) if theirs in _SSM_WHOLE_NAMES else mixer[theirs]
    return Mamba2Config(
        d_model=_whole(fields["d_model"], "d_model"),
        n_layers=_whole(fields["n_layer"], "n_layer"),
        dt_limit=_limit(mixer.get("dt_limit")),
        norm_eps=MAMBA_SSM_NORM_EPS,
        **sizes,
    )


def _to_mamba_ssm(config: Mamba2Config, vocab_size: int) -> dict[str, Any]:
    if config.norm_eps != MAMBA_SSM_NORM_EPS:
        raise InteropError(f"norm_eps is {config.norm_eps}; mamba_ssm has only {MAMBA_SSM_NORM_EPS}")
    if _written_limit(config):
        raise InteropError(f"dt_limit is {config.dt_limit}; mamba_ssm leaves it out of single steps")
    mixer = {theirs: getattr(config, ours) for theirs, ours in _SSM_NAMES.items()}
    return {
        "d_model": config.d_model,
        "d_intermediate": 0,
        "n_layer": config.n_layers,
        "vocab_size": vocab_size,
        "ssm_cfg": {"layer": "Mamba2", **mixer},
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
    }


def _mixer(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    mixer = fields.get("ssm_cfg") or {}
    if not isinstance(mixer, Mapping):
        raise InteropError(f"ssm_cfg is {mixer!r}, not an object")
    return mixer


def _flag(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if value not in (True, False):
        raise InteropError(f"{name} is {value!r}, not true or false")
    return bool(value)


def _refuse(fields: Mapping[str, Any], name: str, only: object, what: str) -> None:
    if fields.get(name, only) != only:
        raise InteropError(f"{name} is {fields[name]!r}: {what} are not supported")


def _whole(value: object, name: str) -> int:
    # JSON as Python reads it may also hold NaN and Infinity, which have no whole part.
    if not isinstance(value, int | float) or (isinstance(value, float) and not value.is_integer()):
        raise InteropError(f"{name} is {value!r}, not a whole number")
    return int(value)


def _limit(value: Any) -> tuple[float, float]:
    """Return a limit of step sizes; infinity as JSON has it: left out, null, a word, or `{"__float__": "Infinity"}`."""
    if value is None:
        return 0.0, math.inf
    try:
        low, high = (bound["__float__"] if isinstance(bound, Mapping) else bound for bound in value)
        return float(low), math.inf if high is None else float(high)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InteropError(f"the limit of step sizes is {value!r}, not a pair of numbers") from error


def _written_limit(config: Mamba2Config) -> list[Any] | None:
    low, high = config.dt_limit
    if low == 0 and high == math.inf:
        return None
    return [low, high if math.isfinite(high) else {"__float__": "Infinity"}]


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
