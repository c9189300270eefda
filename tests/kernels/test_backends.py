"""One suite for every backend and precision: the same numbers as torch, the same refusals, the same manners."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from stacks import (
    BENCHMARKED,
    CONFIGS,
    ODD,
    PLAIN,
    Case,
    assert_call_refused,
    assert_same_bits,
    expected,
    make_inputs,
    make_state,
    make_weights,
    relative_error,
    tensors_of,
)

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import PRECISIONS, BackendUnavailableError, KernelInputError, RolloutCancelled
from models.mamba2.kernels.registry import explain, get_backend
from models.mamba2.state import LayerState, Mamba2State

BACKENDS = ("reference", "cpu", "cuda", "mamba_ssm")
# The `cpu` backend has kernels of its own for each instruction set; the numbers of each are held to the same.
KERNELS = ("cpu", "cpu/avx512_vnni", "cpu/avx512", "cpu/avx2", "cpu/portable", "cuda", "mamba_ssm")
# Largest error relative to the reference of the same precision. The `cpu` kernels round activations too: to 16 bits for
# int8, where the processor multiplies integers, and to bfloat16 before the projections of a layer in bf16, which
# tests/kernels/test_cpu_backend.py holds to torch more closely. A closed loop feeds that back.
TOLERANCE = {"fp32": 1e-5, "bf16": 5e-5, "int8": 1e-3}
CPU_BF16_TOLERANCE = 1e-2
MAMBA_SSM_TOLERANCE = 1e-3


class Variant:
    """A backend in one precision."""

    def __init__(self, backend, name, precision):
        self.backend, self.name, self.precision = backend, name, precision
        self.tolerance = TOLERANCE[precision]
        if name.startswith("cpu") and precision == "bf16":
            self.tolerance = CPU_BF16_TOLERANCE
        if name == "mamba_ssm":
            self.tolerance = max(self.tolerance, MAMBA_SSM_TOLERANCE)

    def pack(self, weights):
        return self.backend.pack(weights, self.precision)

    def prefill(self, weights, inputs, state):
        return run(self.pack(weights).prefill, inputs, state)

    def rollout(self, weights, inputs, state, **options):
        return run(self.pack(weights).rollout, inputs, state, **options)

    def assert_near(self, ours, theirs):
        assert relative_error(ours, theirs) <= self.tolerance


def run(method, inputs, state, **options):
    """Call `prefill` or `rollout`; every backend takes tensors on the CPU and gives its results there."""
    return tensors_of(*method(inputs, state, **options))


def state_of(tensors, config):
    return Mamba2State.from_tensors({name: t for name, t in tensors.items() if name != "outputs"}, config)


def joined(first, second):
    return {**second, "outputs": torch.cat([first["outputs"], second["outputs"]], 1)}


def make_variant(name, precision):
    """Return the variant; its `cpu` kernels are those that GRAPHTIDE_CPU_ISA names when it packs."""
    return Variant(get_backend(name.partition("/")[0]), name, precision)


def lacking(name):
    """Return why a variant cannot run here, or None."""
    backend_name, _, isa = name.partition("/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHTIDE_CPU_ISA", isa)
        try:
            get_backend(backend_name)
        except BackendUnavailableError as error:
            return str(error)
    return None


def variants(names, precisions):
    """Names for parameters: only what can run here, so that one test tells what cannot, not a thousand."""
    return [f"{name}-{precision}" for name in names if lacking(name) is None for precision in precisions]


def fixture_of(names, precisions):
    @pytest.fixture(params=variants(names, precisions))
    def fixture(request, monkeypatch):
        name, precision = request.param.split("-")
        monkeypatch.setenv("GRAPHTIDE_CPU_ISA", name.partition("/")[2])
        return make_variant(name, precision)

    return fixture


# Everything that computes steps by itself, to be compared with the reference.
kernels = fixture_of(KERNELS, PRECISIONS)
variant = fixture_of(BACKENDS, PRECISIONS)
# For what the precision has no part in.
backend = fixture_of(BACKENDS, ["fp32"])


@pytest.mark.parametrize("name", dict.fromkeys(BACKENDS + KERNELS))
def test_everything_below_runs_on(name, require):
    # GRAPHTIDE_REQUIRE names whole backends; no machine has every instruction set.
    require(name, lacking(name) is None, str(lacking(name)))


@pytest.mark.parametrize("feeds_back", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rollout_equals_the_reference(kernels, config, feeds_back):
    case = Case(config, batch=3, feeds_back=feeds_back)
    kernels.assert_near(kernels.rollout(case.weights(), case.inputs(), case.state()), expected(case, kernels.precision))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_prefill_equals_the_steps_of_the_reference(kernels, config):
    case = Case(config, steps=53)
    kernels.assert_near(kernels.prefill(case.weights(), case.inputs(), case.state()), expected(case, kernels.precision))


@pytest.mark.parametrize("config", [PLAIN, BENCHMARKED], ids=["plain", "benchmarked"])
def test_a_thousand_autoregressive_steps_stay_with_the_reference(kernels, config):
    if kernels.name == "cpu/portable" and config is BENCHMARKED:
        pytest.skip("too slow for every run; the same kernels run the smaller size")
    case = Case(config, batch=1, steps=1000, trained=True)
    theirs = expected(case, kernels.precision)
    assert theirs["outputs"][:, -100:].std(1).min() > 0.1, "the loop has died: agreement would mean nothing"
    kernels.assert_near(kernels.rollout(case.weights(), case.inputs(), case.state()), theirs)


def test_a_closed_loop_starts_from_the_previous_outputs(variant):
    case, previous_BR = Case(PLAIN, feeds_back=True), torch.full((2, 3), 0.7)
    call = (case.weights(), case.inputs(), case.state())
    theirs = run(get_backend("reference").pack(call[0], variant.precision).rollout, *call[1:], previous_BR=previous_BR)
    variant.assert_near(variant.rollout(*call, previous_BR=previous_BR), theirs)
    assert relative_error(expected(case, variant.precision), theirs) > variant.tolerance


@pytest.mark.parametrize("batch", [1, 2, 7, 33, 1024])
def test_every_batch_equals_the_reference(kernels, batch):
    for case, method in (
        (Case(PLAIN, batch, 6, feeds_back=True), kernels.rollout),
        (Case(PLAIN, batch, 6), kernels.prefill),
    ):
        kernels.assert_near(method(case.weights(), case.inputs(), case.state()), expected(case, kernels.precision))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 16, 37, 64, 100, 255, 256, 511, 512])
def test_every_length_of_a_chunk_gives_the_steps_of_the_reference(variant, chunk_size):
    # The steps do not know of chunks: they are computed once for all lengths.
    case = Case(ODD, batch=1, steps=530)
    weights = make_weights(replace(ODD, chunk_size=chunk_size))
    variant.assert_near(variant.prefill(weights, case.inputs(), case.state()), expected(case, variant.precision))


@pytest.mark.parametrize("prefix", [0, 1, 2, 15, 16, 17, 50, 99, 100])
def test_a_prefix_of_any_length_carries_its_state_on(variant, prefix):
    case = Case(PLAIN, steps=100)
    weights, inputs, theirs = case.weights(), case.inputs(), expected(case, variant.precision)
    first = variant.prefill(weights, inputs[:, :prefix], case.state())
    for method in (variant.prefill, variant.rollout):
        second = method(weights, inputs[:, prefix:], state_of(first, PLAIN))
        variant.assert_near(joined(first, second), theirs)


@pytest.mark.parametrize("batch", [2, 9, 70])
def test_a_series_gets_the_same_bits_alone_and_among_others(kernels, batch):
    if kernels.name == "mamba_ssm":
        pytest.skip("the order of the sums in torch's matrix products depends on the batch")
    weights = make_weights(ODD, feeds_back=True)
    inputs, state = make_inputs(weights, batch, 25), make_state(ODD, batch)
    rolled, filled = kernels.rollout(weights, inputs, state), kernels.prefill(weights, inputs, state)
    for row in {0, 1, batch // 2, batch - 1}:
        alone_inputs, alone_state = inputs[row : row + 1], state.select([row])
        for among, alone in (
            (rolled, kernels.rollout(weights, alone_inputs, alone_state)),
            (filled, kernels.prefill(weights, alone_inputs, alone_state)),
        ):
            assert_same_bits(alone, {name: tensor[row : row + 1] for name, tensor in among.items()})
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(3))
    shuffled = kernels.rollout(weights, inputs[order], state.select(order))
    assert_same_bits(shuffled, {name: tensor[order] for name, tensor in rolled.items()})


@pytest.mark.parametrize("chunk_steps", [1, 7, 24, 25, 1000])
def test_chunks_of_a_rollout_are_told_and_change_nothing(variant, chunk_steps):
    weights = make_weights(PLAIN, feeds_back=True)
    inputs, state = make_inputs(weights, 2, 25), make_state(PLAIN, 2)
    told = []
    ours = variant.rollout(weights, inputs, state, chunk_steps=chunk_steps, on_chunk=told.append)
    assert told == [min(done, 25) for done in range(chunk_steps, 25 + chunk_steps, chunk_steps)]
    assert_same_bits(ours, variant.rollout(weights, inputs, state))


def test_a_rollout_in_two_calls_equals_one(variant):
    case = Case(PLAIN, steps=30, feeds_back=True)
    weights, inputs = case.weights(), case.inputs()
    first = variant.rollout(weights, inputs[:, :11], case.state())
    previous_BR = first["outputs"][:, -1].contiguous()
    second = variant.rollout(weights, inputs[:, 11:], state_of(first, PLAIN), previous_BR=previous_BR)
    assert_same_bits(joined(first, second), variant.rollout(weights, inputs, case.state()))


@pytest.mark.parametrize("after_chunks", [0, 1, 3])
def test_a_cancelled_rollout_ends_between_chunks_and_leaves_the_stack_usable(backend, after_chunks):
    weights = make_weights(PLAIN, feeds_back=True)
    inputs, state = make_inputs(weights, 2, 50), make_state(PLAIN, 2)
    stack, told = backend.pack(weights), []
    kept = state.clone()
    with pytest.raises(RolloutCancelled):
        run(
            stack.rollout,
            inputs,
            state,
            chunk_steps=10,
            on_chunk=told.append,
            cancelled=lambda: len(told) == after_chunks,
        )
    assert told == [10 * (chunk + 1) for chunk in range(after_chunks)]
    assert_same_bits(state.to_tensors(), kept.to_tensors())
    assert_same_bits(run(stack.rollout, inputs, state), backend.rollout(weights, inputs, state))


def test_an_error_of_the_caller_between_chunks_is_the_callers(backend):
    class CallersError(Exception):
        pass

    def fail(_done):
        raise CallersError

    weights = make_weights(PLAIN)
    with pytest.raises(CallersError):
        backend.rollout(weights, make_inputs(weights, 1, 5), make_state(PLAIN, 1), on_chunk=fail)


def test_no_steps_give_no_outputs_and_the_state_back(backend):
    weights = make_weights(PLAIN, feeds_back=True)
    inputs, state = make_inputs(weights, 2, 0), make_state(PLAIN, 2)
    for tensors in (backend.prefill(weights, inputs, state), backend.rollout(weights, inputs, state)):
        assert tensors["outputs"].shape == (2, 0, 3)
        assert_same_bits(tensors, tensors_of(torch.empty(2, 0, 3), state))


def test_a_call_changes_no_state_and_keeps_no_memory_of_its_arguments(backend):
    weights = make_weights(PLAIN, feeds_back=True)
    inputs, state = make_inputs(weights, 2, 12), make_state(PLAIN, 2)
    stack, kept_state, kept_inputs = backend.pack(weights), state.clone(), inputs.clone()
    first = run(stack.rollout, inputs, state)
    first_bits = {name: tensor.clone() for name, tensor in first.items()}
    run(stack.prefill, inputs, state)
    run(stack.rollout, inputs, state_of(first, PLAIN))
    assert_same_bits(state.to_tensors(), kept_state.to_tensors())
    assert torch.equal(inputs, kept_inputs)
    assert_same_bits(first, first_bits)
    for tensor in (*weights.core.values(), weights.input_weight_DF, weights.head_weight_RD, weights.head_bias_R):
        tensor.fill_(0.5)
    assert_same_bits(run(stack.rollout, inputs, state), first_bits)


def test_outputs_carry_no_gradient_and_views_are_read_right(backend):
    weights = make_weights(PLAIN)
    inputs, state = make_inputs(weights, 2, 12), make_state(PLAIN, 2)
    strided = torch.stack([inputs, -inputs], -1)[..., 0].requires_grad_()
    views = state.map(lambda tensor: torch.stack([tensor, tensor], -1)[..., 1].requires_grad_())
    for method in (backend.rollout, backend.prefill):
        ours = method(weights, strided, views)
        assert not ours["outputs"].requires_grad
        assert_same_bits(ours, method(weights, inputs, state))


def test_threads_share_a_stack(variant):
    weights = make_weights(PLAIN, feeds_back=True)
    stack = variant.pack(weights)
    calls = [(make_inputs(weights, 2, 60, seed), make_state(PLAIN, 2, seed)) for seed in range(8)]
    expected = [run(stack.rollout, *call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda call: run(stack.rollout, *call), calls))
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize("other_name", [name for name in BACKENDS if lacking(name) is None])
def test_backends_take_states_from_each_other(variant, other_name):
    case = Case(PLAIN, steps=120)
    first = variant.prefill(case.weights(), case.inputs()[:, :45], case.state())
    other = make_variant(other_name, variant.precision)
    second = other.rollout(case.weights(), case.inputs()[:, 45:], state_of(first, PLAIN))
    error = relative_error(joined(first, second), expected(case, variant.precision))
    assert error <= max(variant.tolerance, other.tolerance)


def spoiled(tensor, value=math.nan):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


BAD_CALLS = {
    "inputs of two axes": (lambda inputs, state: (inputs[0], state), r"inputs have shape \(4, 5\)"),
    "an empty batch": (lambda inputs, state: (inputs[:0], state.select([])), "batch is empty"),
    "one feature too many": (
        lambda inputs, state: (torch.cat([inputs, inputs[..., :1]], -1), state),
        r"inputs has shape \(2, 4, 6\), not \(2, 4, 5\)",
    ),
    "float64 inputs": (lambda inputs, state: (inputs.double(), state), "inputs is torch.float64"),
    "NaN in the inputs": (lambda inputs, state: (spoiled(inputs), state), "inputs holds values that are not finite"),
    "a state of another batch": (lambda inputs, state: (inputs, state.select([0])), "state of layer 0"),
    "a state of another model": (
        lambda inputs, _state: (inputs, make_state(replace(PLAIN, d_state=8), 2)),
        "state of layer 0 has shape",
    ),
    "a state of another depth": (
        lambda inputs, _state: (inputs, make_state(replace(PLAIN, n_layers=1), 2)),
        "1 layers",
    ),
    "a state of another convolution": (
        lambda inputs, _state: (inputs, make_state(replace(PLAIN, d_conv=3), 2)),
        "conv state of layer 0 has shape",
    ),
    "a float64 state": (lambda inputs, state: (inputs, state.map(torch.Tensor.double)), "float64"),
    "a half state": (lambda inputs, state: (inputs, state.map(torch.Tensor.half)), "float16"),
    "infinity in the state": (
        lambda inputs, state: (
            inputs,
            Mamba2State(
                (state.layers[0], LayerState(state.layers[1].conv_BCK, spoiled(state.layers[1].ssm_BHPN, math.inf)))
            ),
        ),
        "ssm state of layer 1 holds values that are not finite",
    ),
    "NaN in the tail of the convolution": (
        lambda inputs, state: (
            inputs,
            Mamba2State((LayerState(spoiled(state.layers[0].conv_BCK), state.layers[0].ssm_BHPN), state.layers[1])),
        ),
        "conv state of layer 0 holds values that are not finite",
    ),
    "inputs on another device": (lambda inputs, state: (inputs.to("meta"), state), "inputs is on meta"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_refused_before_any_kernel_runs(backend, spoil, message):
    assert_call_refused(backend, spoil, message)


def test_large_values_are_finite_though_their_sum_is_not(backend):
    weights = make_weights(PLAIN)
    inputs = torch.full_like(make_inputs(weights, 1, 2), 3e38)
    assert not torch.isfinite(inputs.sum())
    backend.pack(weights).prefill(inputs, make_state(PLAIN, 1))


def test_bad_options_of_a_rollout_are_refused(backend):
    closed = make_weights(PLAIN, feeds_back=True)
    inputs, state = make_inputs(closed, 2, 4), make_state(PLAIN, 2)
    for options, message in (
        ({"previous_BR": torch.zeros(2, 4)}, r"previous outputs has shape \(2, 4\), not \(2, 3\)"),
        ({"previous_BR": torch.full((2, 3), math.nan)}, "previous outputs holds values"),
        ({"previous_BR": torch.zeros(2, 3, dtype=torch.int64)}, "previous outputs is torch.int64"),
        ({"chunk_steps": 0}, "chunk_steps"),
    ):
        with pytest.raises(KernelInputError, match=message):
            backend.rollout(closed, inputs, state, **options)
    with pytest.raises(KernelInputError, match="open loop"):
        backend.rollout(make_weights(PLAIN), inputs, state, previous_BR=torch.zeros(2, 3))


BAD_WEIGHTS = {
    "NaN in a matrix": (
        lambda w: w.core.update({"layers.1.mixer.in_proj.weight": spoiled(w.core["layers.1.mixer.in_proj.weight"])}),
        r"layers\.1\.mixer\.in_proj\.weight holds values that are not finite",
    ),
    "infinity in A_log": (
        lambda w: w.core.update({"layers.0.mixer.A_log": torch.full((4,), math.inf)}),
        r"layers\.0\.mixer\.A_log holds",
    ),
    "a missing tensor": (lambda w: w.core.pop("layers.0.mixer.D"), r"layers\.0\.mixer\.D is missing"),
    "an unknown tensor": (
        lambda w: w.core.update({"layers.2.mixer.D": torch.zeros(4)}),
        r"layers\.2\.mixer\.D is unknown",
    ),
    "another shape": (
        lambda w: w.core.update({"layers.0.mixer.conv1d.weight": torch.zeros(96, 4)}),
        r"conv1d\.weight has shape \(96, 4\), not \(96, 1, 4\)",
    ),
    "another dtype": (
        lambda w: w.core.update({"norm_f.weight": torch.ones(32, dtype=torch.bfloat16)}),
        r"norm_f\.weight is torch\.bfloat16",
    ),
    "another device": (
        lambda w: w.core.update({"norm_f.weight": torch.ones(32, device="meta")}),
        r"norm_f\.weight is on meta",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused(backend, spoil, message):
    weights = make_weights(PLAIN)
    spoil(weights)
    with pytest.raises(KernelInputError, match=message):
        backend.pack(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_bias_D": torch.zeros(31)}, r"input_bias_D has shape \(31,\)"),
        ({"head_weight_RD": torch.zeros(0, 32), "head_bias_R": torch.zeros(0)}, "at least one output"),
        ({"head_weight_RD": torch.zeros(3, 31)}, r"head_weight_RD has shape \(3, 31\)"),
        ({"input_weight_DF": torch.zeros(32)}, "input_weight_DF has shape"),
        ({"feedback_weight_DR": torch.zeros(32, 4)}, r"feedback_weight_DR has shape \(32, 4\)"),
        ({"head_bias_R": torch.full((3,), math.nan)}, "head_bias_R holds"),
    ],
)
def test_bad_ends_of_a_stack_are_refused(backend, change, message):
    with pytest.raises(KernelInputError, match=message):
        backend.pack(replace(make_weights(PLAIN), **change))


def test_an_unknown_precision_is_refused(backend):
    with pytest.raises(KernelInputError, match="fp16"):
        backend.backend.pack(make_weights(PLAIN), "fp16")


def test_precisions_differ_from_one_another(backend):
    weights = make_weights(PLAIN)
    inputs, state = make_inputs(weights, 1, 10), make_state(PLAIN, 1)
    results = [run(backend.backend.pack(weights, name).rollout, inputs, state)["outputs"] for name in PRECISIONS]
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])


def test_a_forced_backend_is_taken_or_refused_never_replaced(monkeypatch):
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "reference")
    assert get_backend().name == "reference"
    (chosen,) = [line for line in explain() if line.chosen]
    assert (chosen.name, chosen.reason) == ("reference", "named by GRAPHTIDE_BACKEND")
    monkeypatch.setenv("GRAPHTIDE_BACKEND", "tpu")
    with pytest.raises(BackendUnavailableError, match=r"unknown backend 'tpu' \(GRAPHTIDE_BACKEND\); known are cuda"):
        get_backend()
    assert explain()[0].name == "tpu"
    assert not any(line.chosen for line in explain())
    # A name in the call stands above the environment.
    assert get_backend("reference").name == "reference"
    for line in explain()[1:]:
        if line.reason.startswith("unavailable"):
            monkeypatch.setenv("GRAPHTIDE_BACKEND", line.name)
            with pytest.raises(BackendUnavailableError, match=f"backend {line.name} .* cannot run here"):
                get_backend()


def test_the_best_backend_is_chosen_and_every_other_is_explained(monkeypatch):
    monkeypatch.delenv("GRAPHTIDE_BACKEND", raising=False)
    lines = explain()
    assert [line.name for line in lines] == ["cuda", "cpu", "reference", "mamba_ssm"]
    assert [line.name for line in lines if line.chosen] == [get_backend().name]
    assert all(line.reason for line in lines)
    usable = [line.name for line in lines[:3] if not line.reason.startswith("unavailable")]
    assert usable[0] == get_backend().name
    assert not lines[3].chosen


def test_an_impossible_instruction_set_is_named(monkeypatch, require):
    require("cpu", not any(e.name == "cpu" and e.reason.startswith("unavailable") for e in explain()), "no cpu kernels")
    monkeypatch.setenv("GRAPHTIDE_CPU_ISA", "sse9")
    with pytest.raises(BackendUnavailableError, match="GRAPHTIDE_CPU_ISA=sse9"):
        get_backend("cpu")


def test_sizes_of_a_stack_say_what_a_call_needs(backend):
    sizes = backend.pack(make_weights(PLAIN, n_inputs=0, n_outputs=7, feeds_back=True)).sizes
    assert isinstance(sizes.config, Mamba2Config)
    assert (sizes.config, sizes.n_inputs, sizes.n_outputs, sizes.feeds_back) == (PLAIN, 0, 7, True)
