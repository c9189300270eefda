"""Folders of foreign models: language heads and embeddings, and what a save leaves of the model before."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from infra.errors import ModelError
from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.foreign_config import Layout, config_to
from models.mamba2.foreign_weights import ForeignWeights, weights_to
from models.pretrained import Pretrained, load_pretrained, save_pretrained

CONFIG = Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=8, chunk_size=16)
OTHER_CONFIG = Mamba2Config(d_model=8, n_layers=2, d_state=4, headdim=8, chunk_size=16)
HUGGINGFACE_NAME, MAMBA_SSM_NAME = "model.safetensors", "pytorch_model.bin"


def table(rows=5, width=CONFIG.d_model, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def model(embedding_VD=None, lm_head_VD=None, *, tied=False, seed=0, config=CONFIG):
    core = Mamba2Core(config, seed=seed).state_dict()
    return Pretrained(config, ForeignWeights(core, embedding_VD, lm_head_VD, tied))


def is_in(folder, expected):
    loaded = load_pretrained(folder)
    core = expected.weights.core
    return loaded.config == expected.config and all(torch.equal(loaded.weights.core[name], core[name]) for name in core)


def as_mamba_ssm_loads(folder):
    """Embedding and head of a `MambaLMHeadModel`, which ties them before it loads the state dict."""
    fields = json.loads((folder / "config.json").read_text())
    tensors = torch.load(folder / MAMBA_SSM_NAME, weights_only=True)
    vocab, width = fields["vocab_size"], fields["d_model"]
    theirs = nn.Module()
    theirs.backbone = nn.Module()
    theirs.backbone.embedding = nn.Embedding(vocab, width)
    theirs.lm_head = nn.Linear(width, vocab, bias=False)
    if fields["tie_embeddings"]:
        theirs.lm_head.weight = theirs.backbone.embedding.weight
    theirs.load_state_dict({name: tensors[name] for name in theirs.state_dict()})
    return theirs.backbone.embedding.weight.detach(), theirs.lm_head.weight.detach()


@pytest.mark.parametrize("tied", [False, True])
def test_mamba_ssm_loads_the_embedding_and_the_head_that_were_saved(tmp_path, tied):
    embedding = table()
    head = embedding if tied else table(seed=1)
    save_pretrained(tmp_path, model(embedding, None if tied else head, tied=tied), Layout.MAMBA_SSM)
    theirs = as_mamba_ssm_loads(tmp_path)
    assert torch.equal(theirs[0], embedding)
    assert torch.equal(theirs[1], head)
    loaded = load_pretrained(tmp_path).weights
    assert loaded.tied is tied
    assert torch.equal(loaded.embedding_VD, embedding)
    assert loaded.lm_head_VD is None if tied else torch.equal(loaded.lm_head_VD, head)


@pytest.mark.parametrize("through", list(Layout))
def test_the_tied_head_of_hugging_face_outlives_a_round_trip(tmp_path, monkeypatch, require, through):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        import transformers  # noqa: PLC0415 - optional
    except ImportError as error:
        require("interop", False, f"transformers cannot be imported ({error}); pip install graphtide[interop]")
    fields = config_to(CONFIG, Layout.HUGGINGFACE, vocab_size=7, tied=True)
    first = transformers.Mamba2ForCausalLM(transformers.Mamba2Config.from_dict(fields)).eval()
    first.save_pretrained(tmp_path / "first")
    loaded = load_pretrained(tmp_path / "first")
    assert loaded.weights.tied
    save_pretrained(tmp_path / "between", loaded, through)
    save_pretrained(tmp_path / "second", load_pretrained(tmp_path / "between"), Layout.HUGGINGFACE)
    written = json.loads((tmp_path / "second" / "config.json").read_text())
    assert written["architectures"] == ["Mamba2ForCausalLM"]
    assert written["tie_word_embeddings"] is True
    read: Any = transformers.Mamba2ForCausalLM.from_pretrained(tmp_path / "second", output_loading_info=True)
    second, told = read
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    tokens = torch.arange(14).view(2, 7) % 7
    with torch.no_grad():
        torch.testing.assert_close(second.eval()(tokens).logits, first(tokens).logits)


def test_a_file_may_hold_the_tied_table_as_head_or_as_both(tmp_path):
    embedding = table()
    core = model().weights.core
    tensors = weights_to(ForeignWeights(core, embedding, embedding), Layout.HUGGINGFACE)
    (tmp_path / "config.json").write_text(json.dumps(config_to(CONFIG, Layout.HUGGINGFACE, vocab_size=5, tied=True)))
    for _ in range(2):
        save_file(tensors, tmp_path / HUGGINGFACE_NAME)
        found = load_pretrained(tmp_path).weights
        assert found.tied
        assert found.lm_head_VD is None
        assert torch.equal(found.embedding_VD, embedding)
        tensors.pop("backbone.embeddings.weight", None)


@pytest.mark.parametrize("layout", list(Layout))
def test_a_head_that_differs_though_it_is_tied_is_refused(tmp_path, layout):
    save_pretrained(tmp_path, model(table(), table(seed=1)), layout)
    fields = json.loads((tmp_path / "config.json").read_text())
    name = "tie_word_embeddings" if layout is Layout.HUGGINGFACE else "tie_embeddings"
    assert fields[name] is False
    (tmp_path / "config.json").write_text(json.dumps({**fields, name: True}))
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from the embedding"):
        load_pretrained(tmp_path)


BAD_TABLES = [
    (table(7), table(5), "the embedding has 7 tokens, lm_head.weight has 5"),
    (table(7), table(7, 3), r"lm_head\.weight has shape \(7, 3\), the configuration needs \(tokens, 16\)"),
    (torch.full((7, 16), math.nan), None, "the embedding holds values that are not finite"),
    (None, torch.full((7, 16), math.inf), r"lm_head\.weight holds values that are not finite"),
    (torch.zeros(16), None, r"the embedding has shape \(16,\)"),
    (torch.zeros(0, 16), None, r"the embedding has shape \(0, 16\)"),
    (torch.zeros(7, 16, dtype=torch.int64), None, "the embedding is torch.int64"),
]


@pytest.mark.parametrize(("embedding", "head", "word"), BAD_TABLES)
@pytest.mark.parametrize("layout", list(Layout))
def test_tables_that_no_model_can_have_are_not_saved(tmp_path, layout, embedding, head, word):
    with pytest.raises(ModelError, match=word) as told:
        save_pretrained(tmp_path, model(embedding, head), layout)
    assert told.value.fix
    assert tmp_path.name in told.value.place
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("embedding", "head", "word"), BAD_TABLES)
def test_tables_that_no_model_can_have_are_not_read(tmp_path, embedding, head, word):
    tensors = weights_to(ForeignWeights(model().weights.core, embedding, head), Layout.HUGGINGFACE)
    save_file(tensors, tmp_path / HUGGINGFACE_NAME)
    (tmp_path / "config.json").write_text(json.dumps(config_to(CONFIG, Layout.HUGGINGFACE)))
    with pytest.raises(ModelError, match=word) as told:
        load_pretrained(tmp_path)
    assert told.value.fix
    assert HUGGINGFACE_NAME in told.value.place


@pytest.mark.parametrize(("embedding", "head"), [(None, None), (table(), table())])
def test_a_tied_head_without_an_embedding_or_beside_another_head_is_not_saved(tmp_path, embedding, head):
    with pytest.raises(ModelError, match="a tied language head is the embedding"):
        save_pretrained(tmp_path, model(embedding, head, tied=True), Layout.HUGGINGFACE)


def test_two_embeddings_are_refused(tmp_path):
    save_pretrained(tmp_path, model(table()), Layout.HUGGINGFACE)
    tensors = load_file(tmp_path / HUGGINGFACE_NAME)
    save_file({**tensors, "embedding.weight": table(seed=1)}, tmp_path / HUGGINGFACE_NAME)
    with pytest.raises(ModelError, match="two embeddings"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("layout", list(Layout))
def test_a_head_without_an_embedding_gets_one_of_as_many_tokens(tmp_path, layout):
    head = table(9)
    save_pretrained(tmp_path, model(None, head), layout)
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 9
    found = load_pretrained(tmp_path).weights
    assert torch.equal(found.lm_head_VD, head)
    assert torch.equal(found.embedding_VD, torch.zeros(9, 16))


def shard(folder, name):
    """Split the weights that were saved into two files with an index."""
    whole = folder / name
    tensors = load_file(whole) if whole.suffix == ".safetensors" else torch.load(whole, weights_only=True)
    whole.unlink()
    weight_map = {}
    for index, (key, tensor) in enumerate(sorted(tensors.items())):
        weight_map[key] = f"{whole.stem}-{1 + index % 2:05}-of-00002{whole.suffix}"
        part = folder / weight_map[key]
        held = {}
        if part.exists():
            held = load_file(part) if part.suffix == ".safetensors" else torch.load(part, weights_only=True)
        held[key] = tensor.clone()
        save_file(held, part) if part.suffix == ".safetensors" else torch.save(held, part)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


NAMES = {Layout.HUGGINGFACE: HUGGINGFACE_NAME, Layout.MAMBA_SSM: MAMBA_SSM_NAME}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("before", list(Layout))
@pytest.mark.parametrize("after", list(Layout))
def test_what_is_saved_last_is_read_and_nothing_is_left_of_the_weights_before(tmp_path, before, after, sharded):
    save_pretrained(tmp_path, model(seed=1, config=OTHER_CONFIG), before)
    if sharded:
        shard(tmp_path, NAMES[before])
    assert is_in(tmp_path, model(seed=1, config=OTHER_CONFIG))
    kept = {"tokenizer.json", "adapter.safetensors", "notes.bin"}
    for name in kept:
        (tmp_path / name).write_text("kept")
    save_pretrained(tmp_path, model(seed=2), after)
    assert is_in(tmp_path, model(seed=2))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", NAMES[after], *kept}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Layout.HUGGINGFACE, Layout.MAMBA_SSM),
        (Layout.MAMBA_SSM, Layout.HUGGINGFACE),
        (Layout.HUGGINGFACE, Layout.HUGGINGFACE),
        (Layout.MAMBA_SSM, Layout.MAMBA_SSM),
    ],
)
def test_a_save_cut_short_anywhere_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch, before, after, sharded):
    # Files of one layout have the same names: between two renames only models of one configuration stay whole.
    old, new = model(seed=1, config=CONFIG if before is after else OTHER_CONFIG), model(seed=2)
    seen = set()
    for cut in range(20):
        folder = tmp_path / str(cut)
        save_pretrained(folder, old, before)
        if sharded:
            shard(folder, NAMES[before])
        steps = iter(range(100))

        def stopping(real, steps=steps, cut=cut):
            def step(*args, **kwargs):
                if next(steps) == cut:
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            return step

        with monkeypatch.context() as patch:
            for name in ("write_bytes", "write_text", "replace", "unlink"):
                patch.setattr(Path, name, stopping(getattr(Path, name)))
            try:
                save_pretrained(folder, new, after)
            except KeyboardInterrupt:
                whole = False
            else:
                whole = True
        is_new = is_in(folder, new)
        assert is_new or is_in(folder, old), cut
        seen.add(is_new)
        if whole:
            break
    assert whole
    assert seen == {False, True}


def test_an_index_removes_no_more_than_weights_in_its_folder(tmp_path):
    outside, inside = tmp_path / "outside.bin", tmp_path / "folder"
    save_pretrained(inside, model(seed=1), Layout.HUGGINGFACE)
    outside.write_text("kept")
    (inside / "tokenizer.json").write_text("kept")
    listed = ["../outside.bin", "tokenizer.json", "config.json", "pytorch_model.bin", "a\0b.bin", "gone.bin"]
    index = inside / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {str(at): name for at, name in enumerate(listed)}}))
    save_pretrained(inside, model(seed=2), Layout.MAMBA_SSM)
    assert is_in(inside, model(seed=2))
    assert outside.exists()
    assert {path.name for path in inside.iterdir()} == {"config.json", "tokenizer.json", MAMBA_SSM_NAME}


@pytest.mark.parametrize("text", ["{", '{"weight_map": 3}', '{"weight_map": {"a": ".."}}'])
def test_a_damaged_index_before_does_not_hinder_a_save(tmp_path, text):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    save_pretrained(tmp_path, model(), Layout.HUGGINGFACE)
    assert is_in(tmp_path, model())
    assert not index.exists()


def test_weights_that_cannot_be_removed_are_named(tmp_path, monkeypatch):
    save_pretrained(tmp_path, model(seed=1), Layout.HUGGINGFACE)
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.name == HUGGINGFACE_NAME:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(ModelError, match=r"model\.safetensors of the one before cannot be removed: Permission denied"):
        save_pretrained(tmp_path, model(seed=2), Layout.MAMBA_SSM)
    assert is_in(tmp_path, model(seed=2))


@pytest.mark.parametrize("layout", list(Layout))
def test_a_full_disk_is_told_and_leaves_the_old_model(tmp_path, monkeypatch, layout):
    save_pretrained(tmp_path, model(seed=1), layout)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModelError, match="No space left on device"):
        save_pretrained(tmp_path, replace(model(seed=2), config=OTHER_CONFIG), layout)
    monkeypatch.undo()
    assert is_in(tmp_path, model(seed=1))
    assert len(list(tmp_path.iterdir())) == 2
