"""Weights in fewer bits take the bytes they should, lie near what they were, and run as they are stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors

from infra.errors import ModelError
from models import checkpoint, general_folder
from models.forecaster import ForecasterConfig, ForecasterNet, MambaForecaster
from models.mamba2.kernels.contract import KernelInputError, StackWeights
from models.mamba2.kernels.cpu.backend import CpuBackend
from models.mamba2.kernels.registry import get_backend
from models.mamba2.kernels.torch_backend import ReferenceBackend
from models.quantisation import decode, encode, n_bytes
from models.ranks import default_structure
from tests.conftest import lacking
from tests.rounding import RoundingReference
from tests.unit.models.model_series import weekly_history

SMALL = ForecasterConfig(d_model=16, n_layers=2, d_state=8, headdim=16, reach_steps=64)
PRECISIONS = ("bf16", "int8")


@pytest.fixture
def net() -> ForecasterNet:
    """A net whose norms, skips and step sizes are not what they began as."""
    net = ForecasterNet(SMALL, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith(("norm.weight", "norm_f.weight", ".D", "dt_bias", "A_log")):
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return net.eval()


def outputs(net: ForecasterNet) -> torch.Tensor:
    features = torch.randn(1, 40, net.embed.in_features, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return net.head(net.core(net.embed(features))[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_read_lies_within_half_a_step_and_is_stored_in_the_same_bytes_again(
    net: ForecasterNet, precision: str
) -> None:
    stored = encode(net, precision)
    again = ForecasterNet(SMALL)
    again.load_state_dict(decode(stored))
    for name, tensor in encode(again, precision).items():
        assert tensor.dtype == stored[name].dtype
        assert torch.equal(tensor, stored[name]), name
    folded = decode(encode(net, "bf16"))
    for name in (name for name in stored if name.endswith(".step")):
        matrix = name.removesuffix(".step")
        error = (decode(stored)[matrix] - folded[matrix]).abs()
        # Half a step, and what bfloat16 rounded off the matrix that it is compared with.
        assert bool((error <= stored[name].float()[:, None] / 2 + folded[matrix].abs() / 256).all()), matrix
        assert int(stored[matrix].abs().max()) == 127


@pytest.mark.parametrize(("precision", "apart"), [("bf16", 0.01), ("int8", 0.03)])
def test_a_rounded_net_says_nearly_the_same(net: ForecasterNet, precision: str, apart: float) -> None:
    rounded = ForecasterNet(SMALL)
    rounded.load_state_dict(decode(encode(net, precision)))
    before, after = outputs(net), outputs(rounded)
    assert 0 < float((after - before).norm() / before.norm()) < apart


def test_step_sizes_of_the_recurrence_keep_all_their_bits(net: ForecasterNet) -> None:
    stored = encode(net, "int8")
    for name, tensor in net.state_dict().items():
        if name.endswith(("dt_bias", "A_log", ".D")):
            assert torch.equal(stored[name], tensor)


@pytest.mark.parametrize(("precision", "share"), [("bf16", 0.51), ("int8", 0.27)])
def test_the_general_model_becomes_smaller_on_disk(tmp_path: Path, precision: str, share: float) -> None:
    general = checkpoint.load(general_folder())
    assert general is not None
    saved = checkpoint.save(tmp_path, general.net, general.card, precision=precision)
    (weights,) = tmp_path.glob("weights-*.safetensors")
    full = n_bytes(encode(general.net, "fp32"))
    assert n_bytes(load_tensors(weights.read_bytes())) < share * full
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert (loaded.precision, loaded.digest) == (precision, saved.digest)
    # What was read can be written elsewhere, as an export does, and is the same file.
    assert checkpoint.save(tmp_path / "copy", loaded.net, loaded.card, precision=precision).digest == saved.digest


@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_run_the_steps_that_are_stored(net: ForecasterNet, precision: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, net, {}, precision=precision)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    history = weekly_history(60)
    backend = get_backend()
    # The `cpu` kernels round what meets the bf16 weights of a layer as well.
    reference = RoundingReference() if backend.name == "cpu" else ReferenceBackend()
    forecasts = []
    for one in (backend, reference):
        model = MambaForecaster(
            loaded.net, default_structure(7), ranks_season=7, backend=one, precision=loaded.precision
        )
        state = model.update(model.start(history.step_us, history.start_us), history.values)
        forecasts.append(torch.from_numpy(next(model.rollout(state, 20)).quantiles))
    torch.testing.assert_close(*forecasts, rtol=1e-3, atol=1e-3)


def test_packed_weights_take_less_memory_too(net: ForecasterNet) -> None:
    backend = get_backend()
    if not isinstance(backend, CpuBackend):
        lacking("cpu", "only the compiled kernels say how much they hold")
    weights = StackWeights.from_modules(net.embed, net.core, net.head)
    sizes = [backend.pack(weights, precision)._native.weight_bytes for precision in ("fp32", *PRECISIONS)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.6 * sizes[0]


def test_an_unknown_precision_is_refused(net: ForecasterNet, tmp_path: Path) -> None:
    with pytest.raises(KernelInputError, match="int4"):
        checkpoint.save(tmp_path / "new", net, {}, precision="int4")
    assert not (tmp_path / "new").exists()
    checkpoint.save(tmp_path, net, {}, precision="int8")
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "precision": "int4"}))
    with pytest.raises(ModelError, match="int4") as refused:
        checkpoint.load(tmp_path)
    assert "upgrade" in str(refused.value)


def test_steps_without_their_sizes_are_refused(
    net: ForecasterNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = encode(net, "int8")
    del stored["head.weight.step"]
    with pytest.raises(ValueError, match=r"head\.weight"):
        decode(stored)
    monkeypatch.setattr(checkpoint, "encode", lambda *_: stored)
    checkpoint.save(tmp_path, net, {}, precision="int8")
    with pytest.raises(ModelError, match=r"step sizes of head\.weight"):
        checkpoint.load(tmp_path)


def test_an_architecture_of_its_own_comes_back(net: ForecasterNet, tmp_path: Path) -> None:
    pruned = ForecasterNet(replace(SMALL, expand=1), seed=1)
    checkpoint.save(tmp_path, pruned, {})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded.net.config == replace(SMALL, expand=1)
