"""Configurations in the layouts of others: the `config.json` of Hugging Face `transformers` and of `mamba_ssm`.

What an equal result needs and the other side does not have is refused: Hugging Face's cached steps and those of
`mamba_ssm` leave out `dt_limit`, so with a limit only whole sequences agree with theirs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from models.mamba2.config import Mamba2Config, Mamba2ConfigError

# Fixed in mamba_ssm: no configuration of it names another.
MAMBA_SSM_NORM_EPS = 1e-5


class InteropError(ValueError):
    """A foreign configuration or state dict that cannot become ours, or ours theirs; the message names what is odd."""


class Layout(StrEnum):
    """Whose names and files."""

    HUGGINGFACE = "huggingface"
    MAMBA_SSM = "mamba_ssm"


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
        # Left out, transformers rounds every weight to the type of the first, which may be an embedding as it was read.
        "dtype": "float32",
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
