"""The CUDA kernels and their host side, under the emulator, against the torch reference."""

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.mamba2.config import Mamba2Config
from models.mamba2.kernels.contract import KernelInputError, RolloutCancelled, StackSizes, StackWeights
from models.mamba2.kernels.cuda.plan import DeviceLimits, KernelSizes, PrefillPlan, plan_prefill
from models.mamba2.kernels.cuda.rollout_plan import RolloutPlan, plan_rollouts, widen
from models.mamba2.kernels.cuda.stack import CudaStack
from models.mamba2.kernels.torch_backend import ReferenceBackend, ReferenceStack
from models.mamba2.state import Mamba2State
from tests.kernels.cuda_emulation import AMPERE, HOPPER, EmulatedDevice, EmulatedProgram
from tests.kernels.stacks import (
    BENCHMARKED,
    ODD,
    PLAIN,
    SMALLEST,
    make_inputs,
    make_state,
    make_weights,
    trained_weights,
)

TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def device(build_folder: Path, compiler: str) -> EmulatedDevice:
    return EmulatedDevice(build_folder, compiler)


def small_prefill(weights: StackWeights, weight_bytes: int = 4, chunk: int = 8) -> PrefillPlan:
    """The kernels' shape at a hundredth of the threads: a thread of the emulator is slow."""
    return PrefillPlan(
        KernelSizes.of(weights.sizes),
        weight_bytes,
        chunk,
        scan_threads=32,
        conv_threads=32,
        conv_run=4,
        gemm_rows=32,
        gemm_columns=16,
        gemm_depth=8,
        gemm_warp_rows=32,
        gemm_warp_columns=16,
    )


class Case:
    """A stack of one shape, on the emulator and in torch."""

    def __init__(self, weights: StackWeights, *, precision: str = "fp32", **plan: int) -> None:
        self.weights = weights
        self.precision = precision
        self.weight_bytes = 2 if precision == "bf16" else 4
        self.reference: ReferenceStack = ReferenceBackend().pack(self.weights, precision)
        self.chunk = plan.pop("chunk", 8)
        state_in_registers = bool(plan.pop("state_in_registers", 1))
        widest = plan.pop("series", 1)
        threads = plan.pop("threads", 64)
        narrow = RolloutPlan(
            KernelSizes.of(weights.sizes),
            self.weight_bytes,
            series=1,
            threads=threads,
            state_in_registers=state_in_registers,
            **plan,
        )
        self.rollouts = [replace(narrow, series=series) for series in (1, 2, 4) if series <= widest]

    def on(self, device: EmulatedDevice, **options: int) -> CudaStack:
        return CudaStack(
            self.weights,
            self.precision,
            device,
            prefill_plan=small_prefill(self.weights, self.weight_bytes, self.chunk),
            rollout_plans=self.rollouts,
            **options,
        )

    def inputs(self, batch: int, steps: int) -> Tensor:
        shape = (batch, steps, self.weights.sizes.n_inputs)
        return torch.randn(shape, generator=torch.Generator().manual_seed(steps))

    def state(self, batch: int) -> Mamba2State:
        generator = torch.Generator().manual_seed(3)
        zeros = Mamba2State.zeros(self.weights.config, batch)
        return zeros.map(lambda tensor: torch.randn(tensor.shape, generator=generator) * 0.3)

    def previous(self, batch: int) -> Tensor | None:
        if not self.weights.sizes.feeds_back:
            return None
        return torch.randn(batch, self.weights.sizes.n_outputs, generator=torch.Generator().manual_seed(5))


# Between them: one and several blocks a series, rows of the stream that do not divide, groups and heads across and
# within blocks, sizes that fill no lane, no known inputs, weights that stream, state that streams, every storage.
GROUPED = Mamba2Config(d_model=24, n_layers=2, d_state=8, headdim=8, n_groups=2)
HALF_HEADS = Mamba2Config(d_model=36, n_layers=3, d_state=16, headdim=36, dt_limit=(0.002, 0.05))
UNEVEN_ROWS = Mamba2Config(d_model=22, n_layers=2, d_state=8, headdim=44)
ONE_LAYER = Mamba2Config(d_model=16, n_layers=1, d_state=8, headdim=16)
CASES = {
    "groups-across-blocks": Case(
        make_weights(GROUPED, n_inputs=3, n_outputs=5, feeds_back=True), cluster=2, resident_layers=2, series=2
    ),
    "rows-of-several-lanes": Case(
        make_weights(UNEVEN_ROWS, n_inputs=2, n_outputs=7, feeds_back=True), cluster=4, resident_layers=2, series=4
    ),
    "odd": Case(make_weights(ODD, feeds_back=True), cluster=1, resident_layers=3, chunk=4, series=4),
    "smallest": Case(
        make_weights(SMALLEST, n_inputs=0, n_outputs=1, feeds_back=True), cluster=1, resident_layers=1, chunk=4
    ),
    "all-streams-bf16": Case(
        make_weights(HALF_HEADS, n_inputs=9),
        precision="bf16", cluster=4, resident_layers=1, state_in_registers=0, chunk=64,
    ),
    "int8-rows": Case(
        make_weights(ONE_LAYER, n_outputs=2, feeds_back=True), precision="int8", cluster=2, resident_layers=0
    ),
}  # fmt: skip


def relative(ours: Tensor, theirs: Tensor) -> float:
    if theirs.numel() == 0:
        return 0.0
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def assert_close(
    ours: tuple[Tensor, Mamba2State], theirs: tuple[Tensor, Mamba2State], tolerance: float = TOLERANCE
) -> None:
    assert ours[0].shape == theirs[0].shape
    assert relative(ours[0], theirs[0]) <= tolerance
    for our_layer, their_layer in zip(ours[1].layers, theirs[1].layers, strict=True):
        assert relative(our_layer.conv_BCK, their_layer.conv_BCK) <= tolerance
        assert relative(our_layer.ssm_BHPN, their_layer.ssm_BHPN) <= tolerance


def assert_same_bits(ours: tuple[Tensor, Mamba2State], theirs: tuple[Tensor, Mamba2State]) -> None:
    assert torch.equal(ours[0], theirs[0])
    our_tensors, their_tensors = ours[1].to_tensors(), theirs[1].to_tensors()
    assert all(torch.equal(our_tensors[name], their_tensors[name]) for name in their_tensors)


@pytest.mark.parametrize("name", CASES)
class TestParity:
    def test_prefill_equals_the_reference(self, name: str, device: EmulatedDevice) -> None:
        case = CASES[name]
        arguments = case.inputs(2, 21), case.state(2)
        assert_close(case.on(device).prefill(*arguments), case.reference.prefill(*arguments))

    def test_rollout_equals_the_reference(self, name: str, device: EmulatedDevice) -> None:
        case = CASES[name]
        inputs, state, previous = case.inputs(2, 13), case.state(2), case.previous(2)
        assert_close(
            case.on(device).rollout(inputs, state, previous_BR=previous),
            case.reference.rollout(inputs, state, previous_BR=previous),
        )

    def test_a_series_has_the_same_bits_alone_and_among_others(self, name: str, device: EmulatedDevice) -> None:
        case = CASES[name]
        stack = case.on(device)
        inputs, state, previous = case.inputs(5, 11), case.state(5), case.previous(5)
        prefilled, rolled = stack.prefill(inputs, state), stack.rollout(inputs, state, previous_BR=previous)
        device.resident_clusters = 100
        for row in (0, 4):
            one = slice(row, row + 1)
            alone = stack.prefill(inputs[one], state.select([row]))
            assert_same_bits(alone, (prefilled[0][one], prefilled[1].select([row])))
            before = None if previous is None else previous[one]
            alone = stack.rollout(inputs[one], state.select([row]), previous_BR=before)
            assert_same_bits(alone, (rolled[0][one], rolled[1].select([row])))

    def test_pieces_give_what_the_whole_gives(self, name: str, device: EmulatedDevice) -> None:
        case = CASES[name]
        stack = case.on(device)
        inputs, state = case.inputs(1, 19), case.state(1)
        whole = stack.prefill(inputs, state)

        @settings(max_examples=6)
        @given(st.lists(st.integers(0, 19), max_size=3))
        def check(cuts: list[int]) -> None:
            outputs, carried = [], state
            edges = [0, *sorted(cuts), 19]
            for first, last in itertools.pairwise(edges):
                piece, carried = stack.prefill(inputs[:, first:last], carried)
                outputs.append(piece)
            assert_close((torch.cat(outputs, 1), carried), whole)

        check()


class TestTheShapesOfAGpu:
    """The benchmarked size in the very plans that a GPU gets: all threads, all blocks of the cluster."""

    @pytest.mark.parametrize(("limits", "precision"), [(HOPPER, "bf16"), (HOPPER, "fp32"), (AMPERE, "bf16")])
    def test_rollout(self, limits: DeviceLimits, precision: str, compiler: str, build_folder: Path) -> None:
        device = EmulatedDevice(build_folder, compiler, limits=limits)
        weights = make_weights(BENCHMARKED, n_inputs=12, n_outputs=9, feeds_back=True)
        stack, reference = CudaStack(weights, precision, device), ReferenceBackend().pack(weights, precision)
        inputs, state = make_inputs(weights, 2, 3), make_state(BENCHMARKED, 2)
        together = stack.rollout(inputs, state)
        assert_close(together, reference.rollout(inputs, state))
        alone = stack.rollout(inputs[1:], state.select([1]))
        assert_same_bits(alone, (together[0][1:], together[1].select([1])))

    def test_prefill(self, compiler: str, build_folder: Path) -> None:
        weights = make_weights(BENCHMARKED, n_inputs=12, n_outputs=9)
        stack = CudaStack(weights, "bf16", EmulatedDevice(build_folder, compiler))
        inputs, state = make_inputs(weights, 2, 70), make_state(BENCHMARKED, 2)
        assert_close(stack.prefill(inputs, state), ReferenceBackend().pack(weights, "bf16").prefill(inputs, state))


def test_the_order_of_threads_changes_no_bit(device: EmulatedDevice) -> None:
    case = CASES["groups-across-blocks"]
    stack = case.on(device)
    inputs, state = case.inputs(3, 9), case.state(3)
    first = stack.prefill(inputs, state), stack.rollout(inputs, state)
    second = stack.prefill(inputs, state), stack.rollout(inputs, state)
    assert_same_bits(first[0], second[0])
    assert_same_bits(first[1], second[1])


def test_a_small_workspace_changes_no_bit(device: EmulatedDevice) -> None:
    case = CASES["groups-across-blocks"]
    inputs, state = case.inputs(2, 21), case.state(2)
    whole = case.on(device).prefill(inputs, state)
    launches = len(device.launches)
    pieces = case.on(device, workspace_bytes=1).prefill(inputs, state)
    assert len(device.launches) == launches * 4  # 3 pieces of at most 8 steps
    assert_same_bits(pieces, whole)


def test_a_huge_step_size_costs_the_steps_behind_it_no_digits(device: EmulatedDevice) -> None:
    case = CASES["groups-across-blocks"]
    inputs, state = case.inputs(1, 24), case.state(1)
    inputs[:, 3] *= 1e4
    assert_close(case.on(device).prefill(inputs, state), case.reference.prefill(inputs, state))


def test_a_thousand_steps_of_a_trained_loop_keep_to_the_reference(device: EmulatedDevice) -> None:
    case = Case(trained_weights(PLAIN), cluster=2, resident_layers=2, threads=32)
    inputs, state = case.inputs(1, 1000), case.state(1)
    assert_close(case.on(device).rollout(inputs, state), case.reference.rollout(inputs, state))


def test_no_steps_change_nothing(device: EmulatedDevice) -> None:
    case = CASES["groups-across-blocks"]
    stack, state = case.on(device), case.state(2)
    for run in (stack.prefill, stack.rollout):
        assert_same_bits(run(case.inputs(2, 0), state), (torch.empty(2, 0, 5), state))
    assert device.launches == []


def test_the_given_state_is_left_alone(device: EmulatedDevice) -> None:
    case = CASES["groups-across-blocks"]
    stack, state = case.on(device), case.state(2)
    kept = state.clone()
    stack.prefill(case.inputs(2, 5), state)
    stack.rollout(case.inputs(2, 5), state)
    nothing = torch.empty(0)
    assert_same_bits((nothing, state), (nothing, kept))


def test_more_series_than_clusters_are_stepped_several_at_a_time(device: EmulatedDevice) -> None:
    stack = CASES["groups-across-blocks"].on(device)
    device.resident_clusters = 2
    assert [stack.shape_for(batch).plan.series for batch in (1, 2, 3, 4, 5, 1000)] == [1, 1, 2, 2, 2, 2]


def test_a_large_batch_compiles_only_what_can_hold_it(build_folder: Path, compiler: str) -> None:
    compiled: list[str] = []

    class Listing(EmulatedDevice):
        def load(self, sources: Sequence[str], defines: Mapping[str, str]) -> list[EmulatedProgram]:
            compiled.append(defines["SERIES"])
            # The kernels are of no matter here, only how many of them run at once.
            return [EmulatedProgram(ctypes.CDLL(None), 1, self) for _ in sources]

    device = Listing(build_folder, compiler, resident_clusters=2)
    found = []
    for batch in (2, 4, 5, 1000):
        compiled.clear()
        found.append((CASES["odd"].on(device).shape_for(batch).plan.series, sorted(set(compiled))))
    assert found == [(1, ["1"]), (2, ["1", "2"]), (4, ["1", "4"]), (4, ["1", "4"])]


class TestCancelAndProgress:
    def test_chunks_are_reported_in_order(self, device: EmulatedDevice) -> None:
        case = CASES["groups-across-blocks"]
        done: list[int] = []
        case.on(device).rollout(case.inputs(1, 10), case.state(1), chunk_steps=4, on_chunk=done.append)
        assert done == [4, 8, 10]

    def test_a_wish_to_cancel_ends_the_rollout(self, device: EmulatedDevice) -> None:
        case = CASES["groups-across-blocks"]
        done: list[int] = []
        with pytest.raises(RolloutCancelled):
            case.on(device).rollout(
                case.inputs(1, 10), case.state(1), chunk_steps=3, on_chunk=done.append, cancelled=lambda: len(done) == 2
            )
        assert done == [3, 6]
        with pytest.raises(RolloutCancelled):
            case.on(device).rollout(case.inputs(1, 10), case.state(1), cancelled=lambda: True)

    def test_the_kernel_leaves_at_the_next_look_at_the_flag(self, device: EmulatedDevice) -> None:
        case = CASES["groups-across-blocks"]
        stack, state = case.on(device), case.state(1)
        windows = torch.stack([layer.conv_BCK for layer in state.layers])
        states = torch.stack([layer.ssm_BHPN for layer in state.layers])
        kept = states.clone()
        outputs = torch.full((1, 10, 5), torch.nan)
        # The kernel's own progress stands for the host's flag: after the first four steps it says "cancel".
        word = torch.zeros(1, dtype=torch.int32)
        shape = stack.shape_for(1)
        stack.enqueue_rollout(
            shape, case.inputs(1, 10), torch.zeros(1, 5), windows, states, outputs, 4, cancel=word, progress=word
        )
        assert word.item() == 4
        assert torch.isfinite(outputs[:, :4]).all()
        assert torch.isnan(outputs[:, 4:]).all()
        assert torch.equal(states, kept)


class TestRefusals:
    def test_wrong_calls_reach_no_kernel(self, device: EmulatedDevice) -> None:
        case = CASES["groups-across-blocks"]
        stack, inputs, state = case.on(device), case.inputs(2, 4), case.state(2)
        poisoned = state.map(lambda tensor: tensor.clone())
        poisoned.layers[1].ssm_BHPN[0, 0, 0, 0] = torch.nan
        for bad_inputs, bad_state in (
            (inputs[0], state),
            (inputs.double(), state),
            (inputs * torch.inf, state),
            (inputs[..., :2], state),
            (inputs.to("meta"), state),
            (inputs, case.state(3)),
            (inputs, poisoned),
            (inputs, CASES["int8-rows"].state(2)),
        ):
            with pytest.raises(KernelInputError):
                stack.prefill(bad_inputs, bad_state)
            with pytest.raises(KernelInputError):
                stack.rollout(bad_inputs, bad_state)
        assert device.launches == []

    def test_a_stack_too_large_for_a_block(self) -> None:
        tight = DeviceLimits(shared_bytes=512, has_clusters=True)
        with pytest.raises(KernelInputError, match="shared memory"):
            next(plan_rollouts(make_weights(ONE_LAYER).sizes, 4, tight))
        with pytest.raises(KernelInputError, match="shared memory"):
            plan_prefill(make_weights(ONE_LAYER).sizes, 4, tight)


class TestPlans:
    """What the kernels assert at compile time is checked by compiling; this is about the choice."""

    def sizes(self, d_model: int, n_layers: int) -> StackSizes:
        return StackSizes(Mamba2Config(d_model=d_model, n_layers=n_layers), 12, 1, True)

    @pytest.mark.parametrize(
        ("d_model", "n_layers", "weight_bytes", "cluster"),
        [(128, 4, 2, 8), (128, 4, 4, 16), (64, 2, 2, 1), (64, 2, 4, 2)],
    )
    def test_the_smallest_cluster_that_holds_all_weights(
        self, d_model: int, n_layers: int, weight_bytes: int, cluster: int
    ) -> None:
        plan = next(plan_rollouts(self.sizes(d_model, n_layers), weight_bytes, HOPPER))
        assert (plan.cluster, plan.resident_layers, plan.state_in_registers) == (cluster, n_layers, True)

    def test_what_does_not_fit_streams(self) -> None:
        plan = next(plan_rollouts(self.sizes(256, 6), 2, HOPPER))
        assert plan.cluster == 16
        assert 0 < plan.resident_layers < 6
        ampere = next(plan_rollouts(self.sizes(128, 4), 2, AMPERE))
        assert (ampere.cluster, ampere.state_in_registers) == (1, False)

    def test_more_series_at_once_keep_all_that_decides_bits(self) -> None:
        plans = widen(next(plan_rollouts(self.sizes(128, 4), 2, HOPPER)), HOPPER)
        assert [plan.series for plan in plans] == [1, 2, 4]
        assert len({replace(plan, series=1) for plan in plans}) == 1
        assert len({plan.threads_per_channel for plan in plans}) == 1
        assert all(plan.shared_bytes <= HOPPER.shared_bytes for plan in plans)
