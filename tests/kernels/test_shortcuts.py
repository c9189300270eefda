"""What the CPU kernels multiply out before a rollout: the same numbers, only where it is less to do."""

from dataclasses import replace

import pytest
import torch

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import PRECISIONS, StackWeights
from models.mamba2.kernels.cpu.backend import CpuBackend
from models.mamba2.kernels.cpu.shortcuts import find_opening, find_returned
from models.mamba2.state import Mamba2State
from tests.kernels.stacks import make_inputs, make_weights
from tests.rounding import RoundingReference

CONFIG = Mamba2Config(d_model=64, n_layers=2, d_state=12, headdim=16)
NARROW = Mamba2Config(d_model=16, n_layers=2, d_state=12, headdim=16)
FLOAT, BF16, INT8 = 4, 2, 1
RELATIVE = {"fp32": 1e-5, "bf16": 1e-2, "int8": 1e-3}


@pytest.fixture
def pack(require, monkeypatch):
    """Packs for the compiled kernels, with nothing set by the caller's environment."""
    for name in ("GRAPHTIDE_CPU_ISA", "GRAPHTIDE_CPU_THREADS"):
        monkeypatch.delenv(name, raising=False)
    reason = CpuBackend().unavailable()
    require("cpu-kernels", reason is None, str(reason))
    return CpuBackend().pack


def weights_of(config: Mamba2Config, n_inputs: int, n_outputs: int, *, feeds_back: bool = True) -> StackWeights:
    return make_weights(config, n_inputs=n_inputs, n_outputs=n_outputs, feeds_back=feeds_back)


class TestOpening:
    @pytest.mark.parametrize("feeds_back", [False, True])
    def test_it_is_the_embedding_and_what_the_first_layer_makes_of_it(self, feeds_back):
        weights = weights_of(CONFIG, 2, 3, feeds_back=feeds_back)
        opening = find_opening(weights, FLOAT)
        inputs, outputs = torch.randn(2), torch.randn(3)
        embedded = weights.input_weight_DF @ inputs + weights.input_bias_D
        given = [torch.ones(1), inputs]
        if feeds_back:
            embedded = embedded + weights.feedback_weight_DR @ outputs
            given.append(outputs)
        torch.testing.assert_close(opening.embed_DO @ torch.cat(given), embedded)
        projected = weights.core["layers.0.mixer.in_proj.weight"] @ embedded
        torch.testing.assert_close(opening.projected_PO @ torch.cat(given), projected)

    @pytest.mark.parametrize(("weight_bytes", "most"), [(FLOAT, 32), (BF16, 16), (INT8, 8)])
    def test_it_takes_at_most_half_of_what_it_stands_for(self, weight_bytes, most):
        assert find_opening(weights_of(CONFIG, most - 2, 1), weight_bytes) is not None
        assert find_opening(weights_of(CONFIG, most - 1, 1), weight_bytes) is None
        assert find_opening(weights_of(CONFIG, most - 1, 1, feeds_back=False), weight_bytes) is not None

    def test_none_where_the_product_is_no_number_of_single_precision(self):
        weights = weights_of(CONFIG, 2, 3)
        huge = replace(weights, input_weight_DF=torch.full_like(weights.input_weight_DF, 3e38))
        assert find_opening(huge, FLOAT) is None


class TestReturned:
    def test_it_is_the_feedback_of_the_outputs(self):
        weights = weights_of(NARROW, 2, 70)
        returned = find_returned(weights, FLOAT)
        hidden = torch.randn(16)
        outputs = weights.head_weight_RD @ hidden + weights.head_bias_R
        fed = weights.feedback_weight_DR @ outputs
        torch.testing.assert_close(returned.weight_DD @ hidden + returned.bias_D, fed, rtol=1e-5, atol=1e-5)

    def test_only_of_a_closed_loop_and_where_it_is_less_to_read(self):
        assert find_returned(weights_of(NARROW, 2, 17), FLOAT) is not None
        assert find_returned(weights_of(NARROW, 2, 16), FLOAT) is None
        assert find_returned(weights_of(NARROW, 2, 32), BF16) is None
        assert find_returned(weights_of(NARROW, 2, 70, feeds_back=False), FLOAT) is None

    def test_none_where_the_product_is_no_number_of_single_precision(self):
        weights = weights_of(NARROW, 2, 70)
        huge = replace(weights, head_bias_R=torch.full_like(weights.head_bias_R, 3e38))
        assert find_returned(huge, FLOAT) is None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("config", "n_inputs", "n_outputs"), [(CONFIG, 0, 1), (CONFIG, 3, 2), (NARROW, 3, 70)])
@pytest.mark.parametrize("batch", [1, 5, 17])
def test_closed_loops_are_those_of_torch(pack, precision, config, n_inputs, n_outputs, batch):
    weights = weights_of(config, n_inputs, n_outputs)
    # Of few steps: a loop that is fed nothing but its own output blows any difference up.
    inputs, state = make_inputs(weights, batch, 20), Mamba2State.zeros(config, batch)
    previous = torch.randn(batch, n_outputs, generator=torch.Generator().manual_seed(5))
    ours, ours_after = pack(weights, precision).rollout(inputs, state, previous_BR=previous)
    theirs, theirs_after = RoundingReference().pack(weights, precision).rollout(inputs, state, previous_BR=previous)
    for got, expected in [
        (ours, theirs),
        *((a.ssm_BHPN, b.ssm_BHPN) for a, b in zip(ours_after.layers, theirs_after.layers, strict=True)),
    ]:
        scale = max(float(expected.abs().max()), 1.0)
        torch.testing.assert_close(got, expected, rtol=0, atol=RELATIVE[precision] * scale)


@pytest.mark.parametrize("size", [1e6, 1e20, 1e37])
def test_inputs_of_any_size_are_normed_as_in_torch(pack, size):
    weights = weights_of(CONFIG, 3, 2)
    in_proj = weights.core["layers.0.mixer.in_proj.weight"]
    # What is normed still fits single precision; what the layer would make of it before the norm does not.
    weights = replace(weights, core={**weights.core, "layers.0.mixer.in_proj.weight": 100 * in_proj})
    inputs, state = size * make_inputs(weights, 2, 5).clamp(-2, 2), Mamba2State.zeros(CONFIG, 2)
    for ours, theirs in zip(
        (pack(weights).rollout(inputs, state)[0], pack(weights).prefill(inputs, state)[0]),
        (
            one(inputs, state)[0]
            for one in (RoundingReference().pack(weights).rollout, RoundingReference().pack(weights).prefill)
        ),
        strict=True,
    ):
        assert bool(torch.isfinite(theirs).all())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_chunks_and_company_change_no_bit_of_a_loop_with_many_outputs(pack, batch):
    weights = weights_of(NARROW, 3, 70)
    assert find_returned(weights, FLOAT) is not None
    stack, inputs, state = pack(weights), make_inputs(weights, batch, 40), Mamba2State.zeros(NARROW, batch)
    outputs, after = stack.rollout(inputs, state)
    for chunk_steps in (1, 7, 16):
        again, _ = stack.rollout(inputs, state, chunk_steps=chunk_steps)
        assert torch.equal(again, outputs)
    alone, alone_after = stack.rollout(inputs[-1:], state.select([batch - 1]))
    assert torch.equal(alone, outputs[-1:])
    assert torch.equal(alone_after.layers[1].ssm_BHPN, after.layers[1].ssm_BHPN[-1:])


def test_a_loop_with_many_outputs_goes_on_in_another_call(pack):
    weights = weights_of(NARROW, 3, 70)
    stack, inputs, state = pack(weights), make_inputs(weights, 2, 40), Mamba2State.zeros(NARROW, 2)
    whole, _ = stack.rollout(inputs, state)
    first, between = stack.rollout(inputs[:, :11], state)
    second, _ = stack.rollout(inputs[:, 11:], between, previous_BR=first[:, -1].contiguous())
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_what_a_step_must_move_and_multiply(pack):
    """The floor of the benchmarks counts what is read at every step, and that alone."""
    opened, plain = pack(weights_of(CONFIG, 0, 1)), pack(weights_of(CONFIG, 63, 1))
    config = CONFIG
    in_proj, out_proj = config.in_proj_dim * config.d_model, config.d_model * config.d_inner
    assert plain.floor(1).multiply_adds == 2 * (in_proj + out_proj) + config.d_model * (64 + 1)
    assert opened.floor(1).multiply_adds == in_proj + 2 * out_proj + (config.in_proj_dim + config.d_model) * 2 + 64
    assert plain.floor(1).weight_bytes - opened.floor(1).weight_bytes > 0.7 * 4 * in_proj
    few, many = pack(weights_of(NARROW, 3, 16)), pack(weights_of(NARROW, 3, 1600))
    feedback_and_head = 4 * 16 * 1600 * 2
    assert many.floor(1).weight_bytes - few.floor(1).weight_bytes < 0.1 * feedback_and_head
    assert many.floor(1).multiply_adds - few.floor(1).multiply_adds == 16 * (1600 - 16)
