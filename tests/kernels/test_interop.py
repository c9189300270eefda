"""Weights to and from the layouts of Hugging Face and mamba_ssm, and numbers against Hugging Face's implementation."""

import json
import math

import pytest
import torch

from infra.errors import ModelError
from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.foreign_config import InteropError, Layout, config_from, config_to, detect_layout, traits_from
from models.mamba2.foreign_weights import ForeignWeights, weights_from, weights_to
from models.pretrained import Pretrained, load_pretrained, save_pretrained

CONFIG = Mamba2Config(d_model=16, n_layers=2, d_state=8, headdim=8, chunk_size=16)
GROUPED = Mamba2Config(d_model=16, n_layers=2, d_state=4, headdim=4, n_groups=2, expand=3, d_conv=3, chunk_size=8)


def trained_core(config, seed=0):
    """A core whose norms, biases and skips are not those of an untrained one."""
    core = Mamba2Core(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in core.state_dict().items():
            if name.endswith(("norm.weight", "norm_f.weight", ".D")):
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    return core


def sequence(config, batch, length, seed=1):
    return torch.randn(batch, length, config.d_model, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def transformers(monkeypatch, require):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        import transformers  # noqa: PLC0415 - optional
    except ImportError as error:
        require("interop", False, f"transformers cannot be imported ({error}); pip install graphtide[interop]")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@pytest.mark.parametrize("config", [CONFIG, GROUPED], ids=["plain", "grouped"])
def test_hugging_face_computes_the_same_with_our_weights(transformers, tmp_path, config):
    core = trained_core(config)
    save_pretrained(tmp_path, Pretrained(config, ForeignWeights(core.state_dict())), Layout.HUGGINGFACE)
    theirs, told = transformers.Mamba2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    x_BLD = sequence(config, 2, 43)
    with torch.no_grad():
        ours_BLD, _ = core(x_BLD)
        whole_BLD = theirs(inputs_embeds=x_BLD).last_hidden_state
        # A prefix that divides no chunk, then cached steps.
        prefix = theirs(inputs_embeds=x_BLD[:, :19], use_cache=True)
        parts, cache = [prefix.last_hidden_state], prefix.cache_params
        for t in range(19, 43):
            step = theirs(inputs_embeds=x_BLD[:, t : t + 1], cache_params=cache, use_cache=True)
            parts.append(step.last_hidden_state)
    torch.testing.assert_close(ours_BLD, whole_BLD, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours_BLD, torch.cat(parts, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", [False, True], ids=["backbone", "language-model"])
def test_we_compute_the_same_with_weights_that_hugging_face_saved(transformers, tmp_path, head):
    kind = transformers.Mamba2ForCausalLM if head else transformers.Mamba2Model
    fields = config_to(GROUPED, Layout.HUGGINGFACE, vocab_size=11)
    theirs = kind(transformers.Mamba2Config.from_dict(fields)).eval()
    theirs.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.config == GROUPED
    core = Mamba2Core(loaded.config)
    core.load_state_dict(loaded.weights.core)
    tokens = torch.arange(22).view(2, 11) % 11
    with torch.no_grad():
        hidden_BLD, _ = core(torch.nn.functional.embedding(tokens, loaded.weights.embedding_VD))
        if head:
            ours, expected = hidden_BLD @ loaded.weights.lm_head_VD.T, theirs(tokens).logits
        else:
            ours, expected = hidden_BLD, theirs(tokens).last_hidden_state
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_an_embedding_of_fewer_digits_rounds_no_other_weight_in_hugging_face(transformers, tmp_path):
    core, embedding_VD = trained_core(CONFIG), torch.randn(5, CONFIG.d_model).to(torch.bfloat16)
    weights = ForeignWeights(core.state_dict(), embedding_VD, tied=True)
    save_pretrained(tmp_path, Pretrained(CONFIG, weights), Layout.HUGGINGFACE)
    theirs = transformers.Mamba2ForCausalLM.from_pretrained(tmp_path).state_dict()
    for name, tensor in core.state_dict().items():
        torch.testing.assert_close(theirs[f"backbone.{name}"], tensor, rtol=0, atol=0, msg=name)
    assert torch.equal(theirs["backbone.embeddings.weight"], embedding_VD.to(torch.float32))
    assert torch.equal(theirs["lm_head.weight"], embedding_VD.to(torch.float32))
    assert torch.equal(load_pretrained(tmp_path).weights.embedding_VD, embedding_VD)


def test_the_limit_of_step_sizes_reaches_hugging_face(transformers, tmp_path):
    config = Mamba2Config(**{**CONFIG.to_dict(), "dt_limit": (0.01, math.inf)})
    core = trained_core(config)
    save_pretrained(tmp_path, Pretrained(config, ForeignWeights(core.state_dict())), Layout.HUGGINGFACE)
    theirs = transformers.Mamba2Model.from_pretrained(tmp_path)
    assert load_pretrained(tmp_path).config == config
    x_BLD = sequence(config, 1, 20)
    with torch.no_grad():
        limited = core(x_BLD)[0]
        torch.testing.assert_close(limited, theirs(inputs_embeds=x_BLD).last_hidden_state, rtol=1e-4, atol=1e-4)
        free = Mamba2Core(CONFIG)
        free.load_state_dict(core.state_dict())
        assert not torch.allclose(limited, free(x_BLD)[0], atol=1e-4), "the limit changes nothing here"


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("config", [CONFIG, GROUPED], ids=["plain", "grouped"])
def test_what_is_saved_is_read_back(tmp_path, layout, config):
    core = trained_core(config)
    embedding, head = torch.randn(5, config.d_model), torch.randn(5, config.d_model)
    save_pretrained(tmp_path, Pretrained(config, ForeignWeights(core.state_dict(), embedding, head)), layout)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert detect_layout(fields) is layout
    assert fields["vocab_size"] == 5
    loaded = load_pretrained(tmp_path)
    assert loaded.config == config
    assert loaded.weights.core.keys() == core.state_dict().keys()
    for name, tensor in core.state_dict().items():
        assert torch.equal(loaded.weights.core[name], tensor), name
    assert torch.equal(loaded.weights.embedding_VD, embedding)
    assert torch.equal(loaded.weights.lm_head_VD, head)


def test_names_are_those_that_mamba_ssm_reads():
    core = Mamba2Core(CONFIG).state_dict()
    tensors = weights_to(ForeignWeights(core, torch.zeros(3, CONFIG.d_model)), Layout.MAMBA_SSM)
    assert {name for name in tensors if ".layers." not in name} == {
        "backbone.embedding.weight",
        "backbone.norm_f.weight",
        "lm_head.weight",
    }
    assert {name for name in tensors if ".layers.1." in name} == {
        f"backbone.layers.1.{name}"
        for name in (
            "norm.weight",
            "mixer.in_proj.weight",
            "mixer.conv1d.weight",
            "mixer.conv1d.bias",
            "mixer.dt_bias",
            "mixer.A_log",
            "mixer.D",
            "mixer.norm.weight",
            "mixer.out_proj.weight",
        )
    }


def test_a_published_configuration_of_mamba_ssm_is_read():
    # config.json of state-spaces/mamba2-130m.
    fields = {
        "d_model": 768,
        "d_intermediate": 0,
        "n_layer": 24,
        "vocab_size": 50277,
        "ssm_cfg": {"layer": "Mamba2"},
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 16,
        "tie_embeddings": True,
    }
    assert config_from(fields) == Mamba2Config(d_model=768, n_layers=24, d_state=128, headdim=64, chunk_size=256)


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "model.backbone."])
def test_any_known_prefix_is_taken_off(prefix):
    core = trained_core(CONFIG).state_dict()
    tensors = {prefix + name: tensor.to(torch.float64) for name, tensor in core.items()}
    found = weights_from(tensors, CONFIG)
    assert found.embedding_VD is None
    assert all(torch.equal(found.core[name], core[name]) for name in core)
    assert all(tensor.dtype == torch.float32 for tensor in found.core.values())


@pytest.mark.parametrize("layout", list(Layout))
def test_biases_of_the_convolution_are_there_as_the_configuration_says(layout):
    fields = config_to(CONFIG, layout)
    # mamba_ssm has the field among those of the mixer.
    of_conv = fields if layout is Layout.HUGGINGFACE else fields["ssm_cfg"]
    core = trained_core(CONFIG).state_dict()
    bare = {name: tensor for name, tensor in core.items() if not name.endswith("conv1d.bias")}
    with pytest.raises(InteropError, match=r"layers\.0\.mixer\.conv1d\.bias is missing.*use_conv_bias"):
        weights_from(bare, CONFIG, traits_from(fields))
    of_conv["use_conv_bias" if layout is Layout.HUGGINGFACE else "conv_bias"] = False
    without = traits_from(fields)
    assert not weights_from(bare, CONFIG, without).core["layers.1.mixer.conv1d.bias"].any()
    one = {**bare, "layers.1.mixer.conv1d.bias": core["layers.1.mixer.conv1d.bias"]}
    with pytest.raises(InteropError, match=r"layers\.1\.mixer\.conv1d\.bias is there, but"):
        weights_from(one, CONFIG, without)


@pytest.mark.parametrize(
    ("layout", "change", "word"),
    [
        (Layout.HUGGINGFACE, {"use_conv_bias": "no"}, "use_conv_bias is 'no'"),
        (Layout.HUGGINGFACE, {"tie_word_embeddings": None}, "tie_word_embeddings is None"),
        (Layout.MAMBA_SSM, {"tie_embeddings": [1]}, r"tie_embeddings is \[1\]"),
        (Layout.MAMBA_SSM, {"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "conv_bias": 2}}, "conv_bias is 2"),
    ],
)
def test_what_is_said_of_the_weights_is_true_or_false(tmp_path, layout, change, word):
    (tmp_path / "config.json").write_text(json.dumps({**config_to(CONFIG, layout), **change}))
    with pytest.raises(ModelError, match=word):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_bias": True}, "use_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_heads": 3}, "num_heads is 3"),
        ({"expand": 1.7}, "expand"),
        ({"expand": math.nan}, "expand is nan, not a whole number"),
        ({"expand": math.inf}, "expand is inf, not a whole number"),
        ({"num_hidden_layers": math.inf}, "num_hidden_layers is inf"),
        ({"conv_kernel": 4.5}, "conv_kernel is 4.5"),
        ({"time_step_limit": [0, 10**400]}, "limit of step sizes"),
        ({"time_step_limit": ["low", "high"]}, "limit of step sizes"),
        ({"model_type": "bamba"}, "bamba"),
        ({"head_dim": 5}, "headdim 5"),
        ({"hidden_size": None}, "hidden_size is None, not a whole number"),
        ({"layer_norm_epsilon": None}, "no Mamba2 stack"),
    ],
)
def test_what_a_hugging_face_model_has_and_ours_lacks_is_named(change, word):
    with pytest.raises(InteropError, match=word):
        config_from({**config_to(CONFIG, Layout.HUGGINGFACE), **change})


def test_sizes_written_with_a_point_are_whole_numbers():
    found = config_from({**config_to(CONFIG, Layout.HUGGINGFACE), "hidden_size": 16.0, "num_hidden_layers": 2.0})
    assert found == CONFIG
    assert isinstance(found.n_layers, int)


def test_a_missing_field_is_named():
    fields = config_to(CONFIG, Layout.HUGGINGFACE)
    del fields["hidden_size"]
    with pytest.raises(InteropError, match="hidden_size"):
        config_from(fields)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"layer": "Mamba1"}, "Mamba1"),
        ({"bias": True}, "bias"),
        ({"D_has_hdim": True}, "D_has_hdim"),
        ({"rmsnorm": False}, "gated norm"),
        ({"norm_before_gate": True}, "norm before the gate"),
        ({"d_ssm": 16}, "d_ssm"),
        ({"lora_rank": 4}, "lora_rank"),
        ({"expand": math.nan}, "expand is nan, not a whole number"),
    ],
)
def test_what_a_mixer_of_mamba_ssm_has_and_ours_lacks_is_named(change, word):
    fields = config_to(CONFIG, Layout.MAMBA_SSM)
    with pytest.raises(InteropError, match=word):
        config_from({**fields, "ssm_cfg": {**fields["ssm_cfg"], **change}})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"attn_layer_idx": [1]}, "attention"),
        ({"d_intermediate": 8}, "MLP"),
        ({"rms_norm": 0}, "Layer"),
        ({"ssm_cfg": ["abc"]}, "ssm_cfg"),
        ({"n_layer": math.inf}, "n_layer is inf"),
    ],
)
def test_what_a_stack_of_mamba_ssm_has_and_ours_lacks_is_named(change, word):
    with pytest.raises(InteropError, match=word):
        config_from({**config_to(CONFIG, Layout.MAMBA_SSM), **change})


def test_what_mamba_ssm_cannot_express_is_refused():
    for change in ({"norm_eps": 1e-6}, {"dt_limit": (0.01, 1.0)}):
        with pytest.raises(InteropError, match=next(iter(change))):
            config_to(Mamba2Config(**{**CONFIG.to_dict(), "dt_limit": (0.0, math.inf), **change}), Layout.MAMBA_SSM)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda core: core.pop("layers.1.mixer.A_log"), r"layers\.1\.mixer\.A_log is missing"),
        (lambda core: core.update({"layers.2.norm.weight": torch.zeros(16)}), r"layers\.2\.norm\.weight is unknown"),
        (lambda core: core.update({"layers.0.mixer.D": torch.zeros(3)}), r"mixer\.D has shape \(3,\)"),
        (lambda core: core["layers.0.mixer.D"].fill_(math.nan), "not finite"),
        (lambda core: core.update({"layers.0.mixer.D": torch.zeros(4, dtype=torch.int8)}), "int8"),
        (lambda core: core.pop("norm_f.weight"), r"no norm_f\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, word):
    core = trained_core(CONFIG).state_dict()
    change(core)
    with pytest.raises(InteropError, match=word):
        weights_from(core, CONFIG)


def test_a_sharded_model_is_read(tmp_path):
    from safetensors.torch import save_file  # noqa: PLC0415

    core = trained_core(CONFIG).state_dict()
    shards = {"a.safetensors": {}, "b.safetensors": {}}
    for index, (name, tensor) in enumerate(core.items()):
        shards[f"{'ab'[index % 2]}.safetensors"][name] = tensor
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: file for file, tensors in shards.items() for name in tensors}})
    )
    (tmp_path / "config.json").write_text(json.dumps(config_to(CONFIG, Layout.HUGGINGFACE)))
    loaded = load_pretrained(tmp_path).weights.core
    assert all(torch.equal(loaded[name], core[name]) for name in core)


@pytest.mark.parametrize(
    "weight_map",
    [None, [1], "a.safetensors", {"norm_f.weight": 1}, {"norm_f.weight": ["a"]}, {"norm_f.weight": "a\0b"}],
)
def test_a_damaged_index_is_refused(tmp_path, weight_map):
    (tmp_path / "config.json").write_text(json.dumps(config_to(CONFIG, Layout.HUGGINGFACE)))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"no weight_map from tensors to files|is damaged|cannot read"):
        load_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_damaged_anywhere_are_refused(tmp_path, legacy):
    (tmp_path / "config.json").write_text(json.dumps(config_to(CONFIG, Layout.MAMBA_SSM)))
    path = tmp_path / "pytorch_model.bin"
    torch.save({"norm_f.weight": torch.zeros(16)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError):
            load_pretrained(tmp_path)
    for at in range(0, min(len(whole), 600), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        # The other tensors are missing, whatever is read.
        with pytest.raises(ModelError):
            load_pretrained(tmp_path)


DAMAGES = [
    *("no config", "no weights", "cut weights", "empty weights", "text config", "nested config", "code in weights"),
    *("list", "numbers for names"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_with_its_file_named(tmp_path, damage):
    layout = Layout.HUGGINGFACE if damage == "cut weights" else Layout.MAMBA_SSM
    save_pretrained(tmp_path, Pretrained(CONFIG, ForeignWeights(Mamba2Core(CONFIG).state_dict())), layout)
    weights = tmp_path / ("model.safetensors" if damage == "cut weights" else "pytorch_model.bin")
    config = tmp_path / "config.json"
    word = "config.json" if "config" in damage else weights.name
    match damage:
        case "no config":
            config.unlink()
        case "no weights":
            weights.unlink()
            word = tmp_path.name
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "empty weights":
            weights.write_bytes(b"")
        case "text config":
            config.write_text("model: mamba2")
        case "nested config":
            config.write_text("[" * 200_000)
        case "code in weights":
            torch.save({"norm_f.weight": print}, weights)
        case "list":
            torch.save([torch.zeros(3)], weights)
        case "numbers for names":
            torch.save({1: torch.zeros(3)}, weights)
    with pytest.raises(ModelError, match=word):
        load_pretrained(tmp_path)
