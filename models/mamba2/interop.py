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
        lm_head_VD: the language head, as it was; None if there is none (often it is tied to the embedding).
    """

    core: dict[str, Tensor]
    embedding_VD: Tensor | None = None
    lm_head_VD: Tensor | None = None


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


def config_to(config: Mamba2Config, layout: Layout, *, vocab_size: int = 1) -> dict[str, Any]:
    """Return the fields of a foreign `config.json`, all that matter named; JSON has no infinity, so no default limit.

    Raises:
        InteropError: the other side cannot express the configuration.
    """
    if layout is Layout.HUGGINGFACE:
        return _to_huggingface(config, vocab_size)
    return _to_mamba_ssm(config, vocab_size)


def weights_from(tensors: Mapping[str, Tensor], config: Mamba2Config) -> ForeignWeights:
    """Return foreign tensors by our names, whatever stands before them.

    Raises:
        InteropError: a tensor is missing, unknown, of another shape, or holds a value that is not finite.
    """
    prefix = _find_prefix(tensors)
    others = {prefix + name for name in _EMBEDDING.values()} | {_LM_HEAD}
    expected = core_shapes(config)
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name not in others}
    for name in [key for key in expected if key.endswith("conv1d.bias") and key not in found]:
        # A convolution without a bias is one with a bias of zero.
        found[name] = torch.zeros(expected[name])
    if odd := sorted(expected.keys() ^ found.keys()):
        lack = "is missing from" if odd[0] in expected else "is unknown in"
        raise InteropError(f"{prefix}{odd[0]} {lack} the weights of {config.n_layers} Mamba2 layers")
    core = {}
    for name, shape in expected.items():
        tensor = found[name]
        if tuple(tensor.shape) != shape:
            raise InteropError(f"{prefix}{name} has shape {tuple(tensor.shape)}, the configuration needs {shape}")
        if not tensor.is_floating_point():
            raise InteropError(f"{prefix}{name} is {tensor.dtype}, not a floating-point tensor")
        core[name] = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        if not bool(torch.isfinite(core[name]).all()):
            raise InteropError(f"{prefix}{name} holds values that are not finite")
    embeddings = [tensors[name] for name in others - {_LM_HEAD} if name in tensors]
    return ForeignWeights(core, embeddings[0] if embeddings else None, tensors.get(_LM_HEAD))


def weights_to(weights: ForeignWeights, layout: Layout) -> dict[str, Tensor]:
    """Return our weights by foreign names: of the bare backbone, or with `backbone.` where there is a language head.

    `mamba_ssm` has no bare backbone; its names always begin with `backbone.`, and its head is tied to the embedding.
    """
    whole = layout is Layout.MAMBA_SSM or weights.lm_head_VD is not None
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
        "architectures": ["Mamba2Model"],
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
        "tie_word_embeddings": False,
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
    mixer = fields.get("ssm_cfg") or {}
    if not isinstance(mixer, Mapping):
        raise InteropError(f"ssm_cfg is {mixer!r}, not an object")
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
        "tie_embeddings": True,
    }


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


def _find_prefix(tensors: Mapping[str, Tensor]) -> str:
    for prefix in _PREFIXES:
        if f"{prefix}norm_f.weight" in tensors:
            return prefix
    near = next((name for name in tensors if re.search(r"(^|\.)layers\.\d+\.", name)), next(iter(tensors), "nothing"))
    raise InteropError(f"no norm_f.weight, with or without {' '.join(_PREFIXES[1:])}, beside {near}")
