"""A packed stack on a device: prefill as a row of launches, a rollout as one."""

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.mamba2.kernels.contract import (
    BackendUnavailableError,
    KernelInputError,
    RolloutCancelled,
    StackSizes,
    StackWeights,
    check_call,
    check_dense,
)
from models.mamba2.kernels.cuda.device import Device, Program
from models.mamba2.kernels.cuda.driver import Argument
from models.mamba2.kernels.cuda.packing import (
    RolloutTensors,
    load_state,
    pack_prefill,
    pack_rollout,
    prepare,
    stored_bytes,
    unload_state,
)
from models.mamba2.kernels.cuda.plan import KernelSizes, PrefillPlan, plan_prefill
from models.mamba2.kernels.cuda.rollout_plan import RolloutPlan, plan_rollouts, widen
from models.mamba2.state import Mamba2State

# Between two looks at a running rollout.
_LOOK_S = 0.0005
_WORKSPACE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class RolloutShape:
    """A plan with its kernel, and how many of its clusters run at once."""

    plan: RolloutPlan
    program: Program
    resident_clusters: int


class CudaStack:
    """See `contract.PackedStack`. Inputs and state lie on the CPU or on the device, and results where the inputs are.

    Args:
        weights: validated weights.
        precision: one of `contract.PRECISIONS`.
        device: where to run.
        workspace_bytes: memory that prefill may take beside its inputs and outputs; it takes longer histories piece
            by piece, with the same bits.
        prefill_plan: tiles of the prefill, for tests; the best for the device by default.
        rollout_plans: plans of one rollout for different numbers of series, for tests.

    Raises:
        KernelInputError: the kernels cannot be laid out for these sizes on this device.
    """

    def __init__(
        self,
        weights: StackWeights,
        precision: str,
        device: Device,
        *,
        workspace_bytes: int = _WORKSPACE_BYTES,
        prefill_plan: PrefillPlan | None = None,
        rollout_plans: list[RolloutPlan] | None = None,
    ) -> None:
        self.sizes: StackSizes = weights.sizes
        self._kernel_sizes = KernelSizes.of(self.sizes)
        self._device = device
        self._workspace_bytes = workspace_bytes
        self._weights = prepare(weights, precision)
        self._weight_bytes = stored_bytes(precision)
        self.prefill_plan = prefill_plan or plan_prefill(self.sizes, self._weight_bytes, device.limits)
        self._given_plans = rollout_plans
        if rollout_plans is None:
            # Refused here rather than at the first rollout.
            next(plan_rollouts(self.sizes, self._weight_bytes, device.limits))
        with device.current():
            self._prefill_tensors = pack_prefill(
                self._weights, self._kernel_sizes, self._weight_bytes, device.torch_device
            )
        self._lock = threading.Lock()
        self._prefill: tuple[Program, Program] | None = None
        self._rollout: tuple[RolloutShape, RolloutTensors] | None = None

    # ---- prefill -----------------------------------------------------------------------------------------------------

    def prefill(self, inputs_BLF: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """See `contract.PackedStack.prefill`."""
        self._check(inputs_BLF, state)
        batch, length, _ = inputs_BLF.shape
        home, device = inputs_BLF.device, self._device
        with device.current(), torch.no_grad():
            windows, states = load_state(state, self._kernel_sizes, device.torch_device)
            outputs_BLR = self._empty(batch, length, self.sizes.n_outputs)
            piece = self._piece_steps(batch)
            for first in range(0, length, piece):
                inputs = inputs_BLF[:, first : first + piece].to(device.torch_device).resolve_neg().contiguous()
                outputs = self._empty(batch, inputs.shape[1], self.sizes.n_outputs)
                windows = self.enqueue_prefill(inputs, windows, states, outputs)
                outputs_BLR[:, first : first + piece] = outputs
            device.wait()
            return outputs_BLR.to(home), unload_state(windows, states, self._kernel_sizes, home)

    def enqueue_prefill(self, inputs_BLF: Tensor, windows: Tensor, states: Tensor, outputs_BLR: Tensor) -> Tensor:
        """Launch the prefill of one piece and return without waiting; it can be captured into a CUDA graph.

        Args:
            inputs_BLF: known inputs, L >= 1, on the device, contiguous as all others.
            windows: from `packing.load_state`, before the piece.
            states: likewise, before the piece; holds those after it when it has run.
            outputs_BLR: filled when it has run.

        Returns:
            The windows after the piece.
        """
        sizes, plan, tensors = self._kernel_sizes, self.prefill_plan, self._prefill_tensors
        batch, length, _ = inputs_BLF.shape
        rows = batch * length

        stream, projected = self._empty(rows, sizes.width), self._empty(rows, sizes.projected)
        channels, steps = self._empty(rows, sizes.conv_channels), self._empty(rows, sizes.heads)
        mixed = self._empty(batch, length, sizes.inner)
        windows_after = torch.empty_like(windows)
        products, scan = self._prefill_programs()
        count = ctypes.c_longlong(rows)

        def multiply(kernel: str, columns: int, *arguments: Tensor) -> None:
            grid = (-(-rows // plan.gemm_rows), -(-columns // plan.gemm_columns))
            products.launch(kernel, grid, plan.gemm_threads, plan.gemm_shared_bytes, [*arguments, count])

        multiply("embed", sizes.width, inputs_BLF, tensors.embed, tensors.embed_bias, stream)
        for index, layer in enumerate(tensors.layers):
            multiply("project_in", sizes.projected, stream, layer.in_proj, projected)
            constants = [layer.taps, layer.conv_bias, layer.step_bias]
            convolution = [projected, *constants, windows[index], windows_after[index], channels, steps]
            blocks = batch * -(-length // plan.conv_run)
            scan.launch("convolve", (blocks, 1), plan.conv_threads, 0, [*convolution, length])
            self.enqueue_scan(index, channels, steps, states[index], mixed)
            multiply("project_out", sizes.width, mixed, projected, layer.out_proj, stream)
        multiply("read_out", self.sizes.n_outputs, stream, tensors.head, tensors.head_bias, outputs_BLR)
        return windows_after

    def enqueue_scan(self, layer: int, channels: Tensor, steps: Tensor, state: Tensor, mixed_BLI: Tensor) -> None:
        """Launch the chunked scan of one layer and return without waiting.

        Args:
            layer: whose A and D.
            channels: x, B and C after the convolution, [B, L, conv channels].
            steps: dt, [B, L, heads].
            state: [B, heads, head channels, states] before the first step; holds that after the last when it has run.
            mixed_BLI: the outputs, filled when it has run.
        """
        sizes, plan, tensors = self._kernel_sizes, self.prefill_plan, self._prefill_tensors.layers[layer]
        batch, length, _ = mixed_BLI.shape
        chunks = -(-length // plan.chunk)
        _, program = self._prefill_programs()
        kept = self._empty(batch, chunks, sizes.heads)
        starts = self._empty(batch, chunks, *state.shape[1:])
        grid = (batch * chunks, sizes.heads)
        adding: list[Argument] = [channels, steps, tensors.rates, starts, kept, length]
        program.launch("add_chunks", grid, plan.scan_threads, plan.add_shared_bytes, adding)
        blocks = -(-state.numel() // plan.scan_threads)
        passing: list[Argument] = [starts, kept, state, state, chunks, batch]
        program.launch("pass_states", (blocks, 1), plan.scan_threads, 0, passing)
        reading: list[Argument] = [channels, steps, tensors.rates, tensors.skips, starts, mixed_BLI, length]
        program.launch("read_chunks", grid, plan.scan_threads, plan.read_shared_bytes, reading)

    def _prefill_programs(self) -> tuple[Program, Program]:
        """Return the kernels of products and those of the scan."""
        if self._prefill is None:
            products, scan = self._device.load(("products.cu", "scan.cu"), self.prefill_plan.defines())
            self._prefill = products, scan
        return self._prefill

    def _piece_steps(self, batch: int) -> int:
        """Return the steps of a piece: whole chunks, so that pieces change no bit, and what the workspace holds."""
        sizes, chunk = self._kernel_sizes, self.prefill_plan.chunk
        row = sizes.width + sizes.projected + sizes.conv_channels + sizes.inner + 2 * sizes.heads
        state = sizes.inner * sizes.states
        return max(1, self._workspace_bytes // (4 * batch * (chunk * row + state))) * chunk

    # ---- rollout -----------------------------------------------------------------------------------------------------

    def rollout(
        self,
        inputs_BTF: Tensor,
        state: Mamba2State,
        *,
        previous_BR: Tensor | None = None,
        chunk_steps: int = 1024,
        on_chunk: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """See `contract.PackedStack.rollout`.

        The whole rollout is one launch. A chunk is reported once all series have done it; where there are more series
        than the device holds at once, that is not before the last of them run. `cancelled` does not wait for that: it
        is asked once that many steps have been done on average.
        """
        self._check(inputs_BTF, state, previous_BR=previous_BR, chunk_steps=chunk_steps)
        batch, steps, _ = inputs_BTF.shape
        home, device = inputs_BTF.device, self._device
        with device.current(), torch.no_grad():
            windows, states = load_state(state, self._kernel_sizes, device.torch_device)
            outputs_BTR = self._empty(batch, steps, self.sizes.n_outputs)
            if steps > 0:
                if cancelled is not None and cancelled():
                    raise RolloutCancelled
                inputs = inputs_BTF.to(device.torch_device).resolve_neg().contiguous()
                previous = self._previous(previous_BR, batch)
                shape = self.shape_for(batch)
                clusters = -(-batch // shape.plan.series)
                cancel, progress = device.host_words(1), device.host_words(clusters)
                self.enqueue_rollout(
                    shape, inputs, previous, windows, states, outputs_BTR, chunk_steps, cancel, progress
                )
                _watch(device, cancel, progress, steps, chunk_steps, on_chunk, cancelled)
            return outputs_BTR.to(home), unload_state(windows, states, self._kernel_sizes, home)

    def enqueue_rollout(
        self,
        shape: RolloutShape,
        inputs_BTF: Tensor,
        previous_BR: Tensor,
        windows: Tensor,
        states: Tensor,
        outputs_BTR: Tensor,
        poll_steps: int,
        cancel: Tensor,
        progress: Tensor,
    ) -> None:
        """Launch a rollout and return without waiting; it can be captured into a CUDA graph.

        Args:
            shape: from `shape_for`.
            inputs_BTF, previous_BR, outputs_BTR: as in `rollout`, T >= 1, on the device, contiguous as all others.
            windows, states: as in `enqueue_prefill`; hold those after the rollout when it has run.
            poll_steps: steps between two looks at `cancel`.
            cancel, progress: from `Device.host_words`: nonzero to cancel; the steps done of each cluster.
        """
        plan, (_, tensors) = shape.plan, self._ready()
        batch, steps, _ = inputs_BTF.shape
        blocks = -(-batch // plan.series) * plan.cluster
        inputs = [inputs_BTF, previous_BR, windows, states, windows, states, outputs_BTR]
        shape.program.launch(
            "rollout",
            (blocks, 1),
            plan.threads,
            plan.shared_bytes,
            [tensors.weights, tensors.constants, *inputs, batch, steps, min(poll_steps, steps), cancel, progress],
        )

    def shape_for(self, batch: int) -> RolloutShape:
        """Return the shape for a batch: as few series a cluster as let all of them run at once, else as many as can be.

        Raises:
            BackendUnavailableError: the device can run no shape.
        """
        narrow, _ = self._ready()
        best = narrow
        *narrower, widest = self._given_plans or widen(narrow.plan, self._device.limits)
        # More series take more memory of a block, so no more clusters run at once than of one series: what they could
        # not hold is not compiled.
        for plan in [plan for plan in narrower if -(-batch // plan.series) <= narrow.resident_clusters] + [widest]:
            shape = self._compile(plan)
            if shape.resident_clusters > 0:
                best = shape
            if -(-batch // plan.series) <= shape.resident_clusters:
                break
        return best

    def _ready(self) -> tuple[RolloutShape, RolloutTensors]:
        """Compile the rollout of one series and lay out its weights at the first need."""
        with self._lock:
            if self._rollout is None:
                narrow = self._narrowest()
                tensors = pack_rollout(self._weights, narrow.plan, self._device.torch_device)
                self._rollout = narrow, tensors
            return self._rollout

    def _narrowest(self) -> RolloutShape:
        limits = self._device.limits
        for plan in self._given_plans or plan_rollouts(self.sizes, self._weight_bytes, limits):
            shape = self._compile(plan)
            if shape.resident_clusters > 0:
                return shape
        raise BackendUnavailableError("this GPU can run no cluster of the sizes that the rollout was planned for")

    def _compile(self, plan: RolloutPlan) -> RolloutShape:
        (program,) = self._device.load(("rollout.cu",), plan.defines())
        count = program.resident_clusters("rollout", plan.cluster, plan.threads, plan.shared_bytes)
        return RolloutShape(plan, program, count)

    # ---- both --------------------------------------------------------------------------------------------------------

    def _check(
        self, inputs: Tensor, state: Mamba2State, *, previous_BR: Tensor | None = None, chunk_steps: int = 1
    ) -> None:
        check_dense("the inputs", inputs)
        if inputs.device.type not in {"cpu", self._device.torch_device.type}:
            raise KernelInputError(f"the inputs are on {inputs.device}, not on cpu or {self._device.torch_device}")
        check_call(self.sizes, inputs, state, device=inputs.device, previous_BR=previous_BR, chunk_steps=chunk_steps)

    def _previous(self, previous_BR: Tensor | None, batch: int) -> Tensor:
        if previous_BR is None:
            return self._empty(batch, self.sizes.n_outputs).zero_()
        return previous_BR.to(self._device.torch_device).resolve_neg().contiguous()

    def _empty(self, *shape: int) -> Tensor:
        # Kernels read and write float32 whatever torch takes for a default.
        return torch.empty(shape, dtype=torch.float32, device=self._device.torch_device)


def _watch(
    device: Device,
    cancel: Tensor,
    progress: Tensor,
    steps: int,
    chunk_steps: int,
    on_chunk: Callable[[int], None] | None,
    cancelled: Callable[[], bool] | None,
) -> None:
    """Wait for a rollout, reporting chunks and asking whether to go on; it has ended when this returns or raises.

    Raises:
        RolloutCancelled: `cancelled` said so.
    """
    finished = device.mark()
    reported = asked = 0
    try:
        while reported < steps:
            ended = finished()
            done = steps if ended else int(progress.min())
            while reported < steps and (done == steps or reported + chunk_steps <= done):
                reported = min(reported + chunk_steps, steps)
                if on_chunk is not None:
                    on_chunk(reported)
                if reported < steps and cancelled is not None and cancelled():
                    raise RolloutCancelled
            asked = max(asked, reported)
            if not ended and reported < steps:
                # Series that wait for a place hold back what is told, but not a wish to cancel.
                if asked + chunk_steps <= int(progress.sum()) // len(progress):
                    asked += chunk_steps
                    if cancelled is not None and cancelled():
                        raise RolloutCancelled
                time.sleep(_LOOK_S)
        device.wait()
    except BaseException:
        # The kernel still reads the buffers of this call.
        cancel.fill_(1)
        device.wait()
        raise
