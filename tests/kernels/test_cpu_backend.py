"""The compiled CPU backend: the same numbers as torch for every shape, precision and instruction set, the same bits for
every chunking, batch and thread count, and no call that a kernel should not see."""

import itertools
import math
import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.mamba2.config import Mamba2Config
from models.mamba2.core import Mamba2Core
from models.mamba2.kernels.contract import (
    PRECISIONS,
    BackendUnavailableError,
    KernelInputError,
    RolloutCancelled,
    StackWeights,
)
from models.mamba2.kernels.cpu import backend as cpu_backend
from models.mamba2.kernels.cpu.backend import ISA_VARIABLE, THREADS_VARIABLE, CpuBackend
from models.mamba2.kernels.torch_backend import ReferenceBackend
from models.mamba2.state import LayerState, Mamba2State
from tests.rounding import RoundingReference

KERNELS = ("avx512_amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2", "portable")
# Activations are float32, but 16-bit steps of their largest value where integers multiply int8 weights, and bfloat16
# where they meet a layer's bf16 weights: one that lies between two numbers of bfloat16 may go up here, down in torch.
RELATIVE = {"fp32": 1e-5, "bf16": 1e-2, "int8": 1e-5}
RELATIVE_INTEGERS = 1e-3
INTEGERS = ("avx512_amx", "avx512_bf16", "avx512_vnni", "avx2")


@pytest.fixture(autouse=True)
def compiled(require, monkeypatch):
    """Skip without the compiled part; the variables of the caller's environment play no role."""
    for name in (ISA_VARIABLE, THREADS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    reason = CpuBackend().unavailable()
    require("cpu-kernels", reason is None, str(reason))


def usable():
    if cpu_backend._IMPORT_ERROR is not None:
        return []
    from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - only where it is compiled

    return _native.usable_kernels()


def pack(weights, precision="fp32", isa="", threads=1):
    """Pack for given kernels; not by the fixture of pytest, which hypothesis does not reset between examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ISA_VARIABLE, isa)
        patch.setenv(THREADS_VARIABLE, str(threads))
        return CpuBackend().pack(weights, precision)


def make_weights(config, n_inputs, n_outputs, feeds_back, seed=0):
    """Weights near those of a fresh model, every norm and bias away from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    core = Mamba2Core(config, seed=seed)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))

    def matrix(rows, columns):
        return torch.randn(rows, columns, generator=generator) / max(columns, 1) ** 0.5

    return StackWeights(
        config=config,
        core=dict(core.state_dict()),
        input_weight_DF=matrix(config.d_model, n_inputs),
        input_bias_D=0.5 * torch.randn(config.d_model, generator=generator),
        head_weight_RD=matrix(n_outputs, config.d_model),
        head_bias_R=0.1 * torch.randn(n_outputs, generator=generator),
        feedback_weight_DR=0.3 * matrix(config.d_model, n_outputs) if feeds_back else None,
    )


def make_state(config, batch, seed=0):
    """A state as after many steps."""
    generator = torch.Generator().manual_seed(seed)
    return Mamba2State.zeros(config, batch).map(lambda tensor: torch.randn(tensor.shape, generator=generator))


def make_inputs(weights, batch, steps, seed=0):
    return torch.randn(batch, steps, weights.sizes.n_inputs, generator=torch.Generator().manual_seed(seed + 1))


def assert_close(ours, theirs, relative):
    """Compare outputs or states to the size of their largest number."""
    scale = max(float(theirs.abs().max()), 1.0) if theirs.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=relative * scale)


def assert_states_close(ours, theirs, relative):
    for ours_layer, theirs_layer in zip(ours.layers, theirs.layers, strict=True):
        assert_close(ours_layer.conv_BCK, theirs_layer.conv_BCK, relative)
        assert_close(ours_layer.ssm_BHPN, theirs_layer.ssm_BHPN, relative)


def assert_same_bits(ours, theirs):
    """Compare (outputs, state) pairs."""
    assert torch.equal(ours[0], theirs[0])
    for ours_layer, theirs_layer in zip(ours[1].layers, theirs[1].layers, strict=True):
        assert torch.equal(ours_layer.conv_BCK, theirs_layer.conv_BCK)
        assert torch.equal(ours_layer.ssm_BHPN, theirs_layer.ssm_BHPN)


@st.composite
def configs(draw):
    """Sizes that are and are not whole units of 16, one or several panels of 64, one and several groups."""
    headdim = draw(st.sampled_from([4, 7, 16, 24, 48, 64, 80]))
    n_groups = draw(st.integers(1, 2))
    return Mamba2Config(
        d_model=headdim * n_groups * draw(st.integers(2, 3) if headdim < 48 else st.just(1)),
        n_layers=draw(st.integers(1, 2)),
        d_state=draw(st.sampled_from([1, 3, 16, 20])),
        headdim=headdim,
        expand=draw(st.integers(1, 2)),
        d_conv=draw(st.integers(2, 6)),
        n_groups=n_groups,
        dt_limit=draw(st.sampled_from([(0.0, math.inf), (0.002, 0.05), (0.0, 0.1)])),
    )


@given(
    config=configs(),
    n_inputs=st.integers(0, 9),
    n_outputs=st.sampled_from([1, 5, 16, 70]),
    feeds_back=st.booleans(),
    batch=st.integers(1, 14),
    steps=st.integers(0, 12),
    precision=st.sampled_from(PRECISIONS),
    isa=st.sampled_from(KERNELS),
    seed=st.integers(0, 5),
)
@settings(max_examples=80)
def test_like_torch(config, n_inputs, n_outputs, feeds_back, batch, steps, precision, isa, seed):
    if isa not in usable():
        isa = "portable"
    weights = make_weights(config, n_inputs, n_outputs, feeds_back, seed)
    ours = pack(weights, precision, isa)
    assert ours.isa == isa
    theirs = RoundingReference().pack(weights, precision)
    inputs, state = make_inputs(weights, batch, steps, seed), make_state(config, batch, seed)
    kept = state.clone()
    relative = RELATIVE_INTEGERS if precision == "int8" and isa in INTEGERS else RELATIVE[precision]
    previous = torch.randn(batch, n_outputs) if feeds_back else None
    for got, expected in (
        (ours.rollout(inputs, state, previous_BR=previous), theirs.rollout(inputs, state, previous_BR=previous)),
        (ours.prefill(inputs, state), theirs.prefill(inputs, state)),
    ):
        assert_close(got[0], expected[0], relative)
        assert_states_close(got[1], expected[1], relative)
    assert_same_bits((inputs, state), (inputs, kept))


@pytest.mark.parametrize("isa", KERNELS)
def test_bf16_is_that_of_torch(isa, require):
    """Bf16 times bf16, summed in float32, and nothing else lost: of few activations, none lies between two numbers."""
    require("cpu-isa", isa in usable(), f"this processor has no {isa}")
    config = Mamba2Config(d_model=8, n_layers=1, d_state=4, headdim=8)
    weights = make_weights(config, 3, 2, False)
    inputs, state = make_inputs(weights, 2, 4), make_state(config, 2)
    got = pack(weights, "bf16", isa).prefill(inputs, state)
    expected = RoundingReference().pack(weights, "bf16").prefill(inputs, state)
    assert_close(got[0], expected[0], 1e-5)
    assert_states_close(got[1], expected[1], 1e-5)
    unrounded = ReferenceBackend().pack(weights, "bf16").prefill(inputs, state)
    assert float((got[0] - unrounded[0]).abs().max()) > 1e-4, "the activations were not rounded"


@pytest.mark.parametrize("feeds_back", [False, True])
def test_dot_products_of_bf16_give_the_bits_of_multiply_adds(feeds_back, require):
    require("cpu-isa", "avx512_bf16" in usable(), "this processor has no avx512_bf16")
    config = Mamba2Config(d_model=80, n_layers=2, d_state=20, headdim=40)
    weights = make_weights(config, 3, 5, feeds_back)
    for batch in (1, 9):
        inputs, state = make_inputs(weights, batch, 100), make_state(config, batch)
        native, widened = (pack(weights, "bf16", isa).rollout(inputs, state) for isa in ("avx512_bf16", "avx512"))
        assert_same_bits(native, widened)


@pytest.mark.parametrize("isa", KERNELS)
def test_sums_of_many_large_int8_products_do_not_run_over(isa, require):
    """In a row of out_proj all 640 weights and all activations are the largest: their sum does not fit 32 bits."""
    require("cpu-isa", isa in usable(), f"this processor has no {isa}")
    config = Mamba2Config(d_model=320, n_layers=1, d_state=4, headdim=64)
    weights = make_weights(config, 2, 3, False)
    for name, tensor in weights.core.items():
        tensor.fill_(1.0 if "norm" in name or name.endswith("D") else 0.05)
    weights.input_weight_DF.fill_(0.5)
    weights.input_bias_D.fill_(0.5)
    inputs, state = torch.ones(2, 5, 2), Mamba2State.zeros(config, 2)
    got = pack(weights, "int8", isa).prefill(inputs, state)
    expected = RoundingReference().pack(weights, "int8").prefill(inputs, state)
    assert_close(got[0], expected[0], RELATIVE_INTEGERS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounded_weights_are_near_the_given_ones(precision):
    config = Mamba2Config(d_model=48, n_layers=2, d_state=16, headdim=24)
    weights = make_weights(config, 3, 7, True)
    folded = ReferenceBackend().pack(weights)
    inputs, state = make_inputs(weights, 3, 30), make_state(config, 3)
    got = pack(weights, precision).rollout(inputs, state)[0]
    error = float((got - folded.rollout(inputs, state)[0]).abs().max())
    assert error < {"fp32": 1e-5, "bf16": 2e-2, "int8": 1e-1}[precision]


@pytest.mark.parametrize("isa", KERNELS)
def test_thousand_closed_steps_stay_with_torch(isa, require):
    require("cpu-isa", isa in usable(), f"this processor has no {isa}")
    config = Mamba2Config(d_model=64, n_layers=2, d_state=32, headdim=32)
    weights = make_weights(config, 4, 6, True)
    inputs, state = make_inputs(weights, 2, 1000), Mamba2State.zeros(config, 2)
    expected = ReferenceBackend().pack(weights).rollout(inputs, state)
    got = pack(weights, isa=isa).rollout(inputs, state)
    assert_close(got[0], expected[0], 1e-5)
    assert_states_close(got[1], expected[1], 1e-5)


@given(
    precision=st.sampled_from(PRECISIONS),
    isa=st.sampled_from(KERNELS),
    feeds_back=st.booleans(),
    batch=st.sampled_from([2, 3, 7, 13, 70]),
    steps=st.integers(1, 9),
    threads=st.integers(1, 3),
)
@settings(max_examples=30)
def test_a_series_gives_the_same_bits_alone_and_among_others(precision, isa, feeds_back, batch, steps, threads):
    isa = isa if isa in usable() else "portable"
    config = Mamba2Config(d_model=40, n_layers=2, d_state=9, headdim=20, n_groups=2)
    weights = make_weights(config, 3, 5, feeds_back)
    together = pack(weights, precision, isa, threads)
    alone = pack(weights, precision, isa)
    inputs, state = make_inputs(weights, batch, steps), make_state(config, batch)
    for ours, single in ((together.rollout, alone.rollout), (together.prefill, alone.prefill)):
        outputs, after = ours(inputs, state)
        for row in (0, batch // 2, batch - 1):
            expected = single(inputs[row : row + 1], state.select([row]))
            assert_same_bits((outputs[row : row + 1], after.select([row])), expected)


@pytest.mark.parametrize("feeds_back", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@given(cuts=st.lists(st.integers(0, 200), max_size=4), chunk_steps=st.integers(1, 250))
@settings(max_examples=8)
def test_every_cut_gives_the_same_bits(precision, feeds_back, cuts, chunk_steps):
    config = Mamba2Config(d_model=24, n_layers=2, d_state=5, headdim=12, d_conv=3)
    weights = make_weights(config, 2, 4, feeds_back)
    stack = pack(weights, precision)
    inputs, state = make_inputs(weights, 2, 200), make_state(config, 2)
    whole = stack.rollout(inputs, state, chunk_steps=chunk_steps)
    edges = [0, *sorted(cuts), 200]
    parts, after, previous = [], state, None
    for begin, end in itertools.pairwise(edges):
        outputs, after = stack.rollout(inputs[:, begin:end], after, previous_BR=previous)
        parts.append(outputs)
        if feeds_back and end > begin:
            previous = outputs[:, -1]
    assert_same_bits((torch.cat(parts, 1), after), whole)
    if not feeds_back:
        assert_same_bits(stack.prefill(inputs, state), whole)


def test_a_session_that_gets_more_threads_between_steps_gives_the_same_bits():
    from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - only where it is compiled

    config = Mamba2Config(d_model=24, n_layers=2, d_state=5, headdim=12)
    weights = make_weights(config, 2, 4, True)
    native, inputs, results = pack(weights)._native, make_inputs(weights, 5, 12).numpy(), []
    for threads in ((1, 1, 1), (1, 3, 2), (2, 100, 1)):
        session, outputs = _native.Session(native, 5, threads[0]), torch.zeros(5, 12, 4)
        assert session.threads == threads[0]
        for begin, count in zip((0, 4, 8), threads, strict=True):
            session.threads = count
            assert session.threads == count
            session.advance(inputs, outputs.numpy(), begin, begin + 4, True)
        results.append(outputs)
    assert all(torch.equal(result, results[0]) for result in results)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="threads"):
            session.threads = bad


def test_padding_and_tiny_numbers_change_nothing():
    """A state that faded below the normal range is worth nothing, and NaN does not come out of it."""
    config = Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=16)
    weights = make_weights(config, 1, 1, False)
    stack = pack(weights)
    inputs = make_inputs(weights, 1, 5)
    tiny = Mamba2State.zeros(config, 1).map(lambda tensor: torch.full_like(tensor, 1e-40))
    assert_close(stack.prefill(inputs, tiny)[0], stack.prefill(inputs, Mamba2State.zeros(config, 1))[0], 1e-7)
    assert float(torch.tensor(1e-40)) > 0, "the kernels left the processor flushing small numbers to zero"


def test_extreme_inputs_give_what_torch_gives():
    config = Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=8)
    weights = make_weights(config, 2, 3, False)
    inputs = torch.tensor([[[1e4, -1e4], [3e3, 50.0], [0.0, 0.0], [-800.0, 1e-30]]])
    state = Mamba2State.zeros(config, 1)
    got, expected = pack(weights).prefill(inputs, state), ReferenceBackend().pack(weights).prefill(inputs, state)
    assert_close(got[0], expected[0], 1e-5)
    assert_states_close(got[1], expected[1], 1e-5)


class TestCancel:
    config = Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=8)

    def test_reports_each_chunk_and_stops_when_asked(self):
        weights = make_weights(self.config, 1, 1, True)
        done = []
        with pytest.raises(RolloutCancelled):
            pack(weights).rollout(
                make_inputs(weights, 2, 100),
                Mamba2State.zeros(self.config, 2),
                chunk_steps=30,
                on_chunk=done.append,
                cancelled=lambda: len(done) == 2,
            )
        assert done == [30, 60]
        pack(weights).rollout(
            make_inputs(weights, 2, 100), Mamba2State.zeros(self.config, 2), chunk_steps=30, on_chunk=done.append
        )
        assert done[2:] == [30, 60, 90, 100]

    def test_an_error_of_the_caller_comes_through(self):
        weights = make_weights(self.config, 1, 1, False)

        def refuse(_):
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            pack(weights).rollout(make_inputs(weights, 1, 5), Mamba2State.zeros(self.config, 1), on_chunk=refuse)


class TestRefusals:
    config = Mamba2Config(d_model=16, n_layers=2, d_state=4, headdim=8)

    @pytest.fixture
    def weights(self):
        return make_weights(self.config, 3, 2, False)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda w: w.core.pop("norm_f.weight"), "norm_f.weight is missing"),
            (lambda w: w.core.update(extra=torch.zeros(1)), "extra is unknown"),
            (lambda w: w.core.update({"norm_f.weight": torch.ones(17)}), r"norm_f.weight has shape \(17,\)"),
            (lambda w: w.core.update({"norm_f.weight": torch.ones(16).double()}), "is torch.float64"),
            (lambda w: w.core["layers.1.mixer.D"].fill_(math.nan), "layers.1.mixer.D holds values that are not finite"),
            (lambda w: w.head_bias_R.fill_(math.inf), "head_bias_R holds values that are not finite"),
        ],
    )
    def test_bad_weights(self, weights, change, said):
        change(weights)
        with pytest.raises(KernelInputError, match=said):
            pack(weights)

    def test_bad_shapes_of_the_outer_matrices(self, weights):
        for bad in (
            replace(weights, input_weight_DF=torch.zeros(5, 3)),
            replace(weights, head_weight_RD=torch.zeros(0, 16), head_bias_R=torch.zeros(0)),
            replace(weights, head_weight_RD=torch.zeros(2)),
            replace(weights, feedback_weight_DR=torch.zeros(16, 3)),
        ):
            with pytest.raises(KernelInputError):
                pack(bad)

    def test_unknown_precision(self, weights):
        with pytest.raises(KernelInputError, match="fp64"):
            pack(weights, "fp64")

    def test_bad_calls(self, weights):
        stack = pack(weights)
        inputs, state = make_inputs(weights, 2, 4), Mamba2State.zeros(self.config, 2)
        other = Mamba2State.zeros(replace(self.config, d_state=5), 2)
        broken = state.clone()
        broken.layers[1].ssm_BHPN[1, 0, 0, 0] = math.nan
        swapped = Mamba2State((LayerState(state.layers[0].conv_BCK, torch.zeros(2, 4, 8, 3)), state.layers[1]))
        for call in (stack.prefill, stack.rollout):
            for bad_inputs, bad_state, said in (
                (inputs[0], state, "not .batch, steps, features"),
                (inputs[:0], Mamba2State.zeros(self.config, 1).select([]), "no series"),
                (inputs[..., :2], state, "the inputs have shape|the inputs has shape"),
                (inputs.double(), state, "float64"),
                (inputs * math.nan, state, "not finite"),
                (inputs[:1], state, "state of layer 0"),
                (inputs, other, "state of layer 0"),
                (inputs, broken, "ssm state of layer 1 holds values that are not finite"),
                (inputs, swapped, "ssm state of layer 0"),
                (inputs, state.map(torch.Tensor.double), "float64"),
                (inputs.to("meta"), state, "meta"),
            ):
                with pytest.raises(KernelInputError, match=said):
                    call(bad_inputs, bad_state)

    def test_bad_feedback_and_chunks(self, weights):
        inputs, state = make_inputs(weights, 2, 4), Mamba2State.zeros(self.config, 2)
        with pytest.raises(KernelInputError, match="open loop"):
            pack(weights).rollout(inputs, state, previous_BR=torch.zeros(2, 2))
        with pytest.raises(KernelInputError, match="chunk_steps"):
            pack(weights).rollout(inputs, state, chunk_steps=0)
        closed = pack(make_weights(self.config, 3, 2, True))
        with pytest.raises(KernelInputError, match="previous outputs"):
            closed.rollout(inputs, state, previous_BR=torch.zeros(2, 3))

    def test_non_contiguous_tensors_are_fine(self, weights):
        stack = pack(weights)
        inputs, state = make_inputs(weights, 2, 6), make_state(self.config, 2)
        turned = inputs.transpose(0, 1).contiguous().transpose(0, 1)
        assert not turned.is_contiguous()
        assert_same_bits(stack.prefill(turned, state), stack.prefill(inputs, state))

    def test_the_native_layer_checks_sizes_itself(self, weights):
        from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - only where it is compiled

        session = _native.Session(pack(weights)._native, 2, 1)
        good = torch.zeros(2, 4, 3).numpy(), torch.zeros(2, 4, 2).numpy()
        for inputs, outputs, begin, end in (
            (good[0][:1], good[1], 0, 4),
            (good[0], good[1][:, :3].copy(), 0, 4),
            (good[0], good[1], 0, 5),
            (good[0], good[1], -1, 4),
            (good[0], good[1], 3, 2),
        ):
            with pytest.raises(ValueError):
                session.advance(inputs, outputs, begin, end, False)
        with pytest.raises(ValueError, match="feedback"):
            session.advance(*good, 0, 4, True)
        with pytest.raises(ValueError):
            session.load(0, torch.zeros(3).numpy(), torch.zeros(3).numpy())
        with pytest.raises(ValueError):
            session.load(2, torch.zeros(2, 40, 3).numpy(), torch.zeros(2, 4, 8, 4).numpy())


class TestChoice:
    weights = make_weights(Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=8), 1, 1, False)

    def test_unknown_kernels_are_refused(self, monkeypatch):
        monkeypatch.setenv(ISA_VARIABLE, "mmx")
        assert "GRAPHTIDE_CPU_ISA=mmx" in str(CpuBackend().unavailable())
        with pytest.raises(BackendUnavailableError, match="mmx"):
            CpuBackend().pack(self.weights)

    @pytest.mark.parametrize("text", ["0", "-1", "many", "1000", "1.5"])
    def test_bad_thread_counts_are_refused(self, monkeypatch, text):
        monkeypatch.setenv(THREADS_VARIABLE, text)
        with pytest.raises(BackendUnavailableError, match="GRAPHTIDE_CPU_THREADS"):
            CpuBackend().pack(self.weights)

    def test_a_missing_build_says_what_is_lost_and_what_helps(self, monkeypatch):
        monkeypatch.setattr(cpu_backend, "_IMPORT_ERROR", ImportError("no _native"))
        reason = str(CpuBackend().unavailable())
        assert "slower" in reason
        assert "compiler" in reason
        assert "--force-reinstall" in reason
        with pytest.raises(BackendUnavailableError, match="compiler"):
            CpuBackend().pack(self.weights)

    def test_the_floor_is_measured(self):
        floor = pack(self.weights).floor(repeats=3)
        assert floor.seconds > 0
        assert floor.weight_bytes > 4 * sum(t.numel() for n, t in self.weights.core.items() if "proj" in n)

    def test_weights_of_modules_are_copies(self):
        config = Mamba2Config(d_model=16, n_layers=1, d_state=4, headdim=8)
        embed, core, head = nn.Linear(2, 16), Mamba2Core(config), nn.Linear(16, 3)
        weights = StackWeights.from_modules(embed, core, head)
        before = weights.head_bias_R.clone()
        with torch.no_grad():
            head.bias.add_(1)
            core.norm_f.weight.add_(1)
        assert torch.equal(weights.head_bias_R, before)
        assert float(weights.core["norm_f.weight"].max()) == 1.0
        assert os.environ.get(ISA_VARIABLE) is None
