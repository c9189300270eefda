"""How a stack is laid over a GPU: cluster, threads, tiles, what stays in shared memory; all fixed when kernels compile.

The formulas of lengths and offsets stand in the kernels too, which assert that both sides agree.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from models.mamba2.kernels.contract import KernelInputError, StackSizes

Defines = dict[str, str]

_WARP = 32
_MOST_THREADS = 512
# Registers of a thread that hold state; beyond, what is left of 65,536 / 512 = 128 no longer holds the rest.
_STATE_REGISTERS = 64
_PORTABLE_CLUSTERS = (1, 2, 4, 8)
_LARGEST_CLUSTER = 16
_SERIES_AT_ONCE = (1, 2, 4)
_CHUNKS = (64, 32, 16)
# Four counters of 8 bytes.
_ARRIVAL_FLOATS = 8


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """What a plan must know of a GPU.

    Attributes:
        shared_bytes: dynamic shared memory that a block can have.
        has_clusters: whether blocks can form clusters (sm_90 and later).
    """

    shared_bytes: int
    has_clusters: bool


@dataclass(frozen=True, slots=True)
class KernelSizes:
    """The sizes that kernels are compiled for: heads and states are filled up to multiples of 4, as loads need.

    What is filled up is zero in weights and state, and so stays zero; only norms must know of it.

    Attributes:
        stack: the sizes of the stack itself.
        head_channels, states: headdim and d_state, filled up.
    """

    stack: StackSizes
    head_channels: int
    states: int

    @classmethod
    def of(cls, stack: StackSizes) -> Self:
        """Return the sizes for a stack."""
        return cls(stack, -(-stack.config.headdim // 4) * 4, -(-stack.config.d_state // 4) * 4)

    @property
    def layers(self) -> int:
        """Layers of the stack."""
        return self.stack.config.n_layers

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.stack.config.d_model

    @property
    def heads(self) -> int:
        """Heads of a layer."""
        return self.stack.config.n_heads

    @property
    def groups(self) -> int:
        """Groups of heads, and parts of the gated norm."""
        return self.stack.config.n_groups

    @property
    def taps(self) -> int:
        """Taps of the convolution."""
        return self.stack.config.d_conv

    @property
    def inner(self) -> int:
        """Channels of a layer."""
        return self.heads * self.head_channels

    @property
    def maps(self) -> int:
        """Channels of B and C."""
        return 2 * self.groups * self.states

    @property
    def conv_channels(self) -> int:
        """Channels of the convolution."""
        return self.inner + self.maps

    @property
    def projected(self) -> int:
        """Rows of in_proj."""
        return self.inner + self.conv_channels + self.heads

    def defines(self, weight_bytes: int) -> Defines:
        """Return the macros that all kernels share."""
        config = self.stack.config
        low, high = config.dt_limit
        return {
            "WIDTH": str(self.width),
            "INNER": str(self.inner),
            "STATES": str(self.states),
            "HEAD_CHANNELS": str(self.head_channels),
            "GROUPS": str(self.groups),
            "GROUP_CHANNELS": str(config.d_inner // self.groups),
            "TAPS": str(self.taps),
            "INPUTS": str(self.stack.n_inputs),
            "OUTPUTS": str(self.stack.n_outputs),
            "WEIGHT_BF16": str(int(weight_bytes == 2)),
            "NORM_EPS": _float(config.norm_eps),
            "STEP_LOW": _float(low),
            # The largest float stands for no limit.
            "STEP_HIGH": _float(min(high, 3.4028234663852886e38)),
        }


@dataclass(frozen=True, slots=True)
class MatrixLayout:
    """How a matrix of a rollout lies in memory; `matvec.cuh` has the same rule.

    Attributes:
        rows, columns: of the matrix.
        lanes: lanes of a warp that share a row.
        pieces: loads of a lane for a row.
        vector: weights of a load.
    """

    rows: int
    columns: int
    lanes: int
    pieces: int
    vector: int

    @classmethod
    def of(cls, rows: int, columns: int, threads: int, weight_bytes: int) -> Self:
        """Return the layout: as many lanes as find a load each, as long as a block goes over all rows at most twice."""
        vector, lanes = 16 // weight_bytes, 1
        while lanes < _WARP and 2 * lanes * vector <= columns and rows * lanes <= threads:
            lanes *= 2
        return cls(rows, columns, lanes, -(-columns // (lanes * vector)), vector)

    @property
    def row_length(self) -> int:
        """Columns with padding."""
        return self.pieces * self.lanes * self.vector

    @property
    def weights(self) -> int:
        """Weights with padding."""
        return self.rows * self.row_length


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """One compiled shape of the rollout kernel.

    Attributes:
        sizes: sizes of the stack's kernels.
        weight_bytes: 4 for float weights, 2 for bfloat16.
        cluster: blocks that share a series.
        series: series that a cluster steps at once.
        threads: threads of a block.
        resident_layers: leading layers whose weights stay in shared memory.
        state_in_registers: whether the state does not leave the block between steps.
    """

    sizes: KernelSizes
    weight_bytes: int
    cluster: int
    series: int
    threads: int
    resident_layers: int
    state_in_registers: bool

    @property
    def channels(self) -> int:
        """Inner channels of a block."""
        return self.sizes.inner // self.cluster

    @property
    def maps(self) -> int:
        """Channels of B and C that a block convolves."""
        return self.sizes.maps // self.cluster

    @property
    def heads(self) -> int:
        """Heads that a block has channels of."""
        return max(1, self.channels // self.sizes.head_channels)

    @property
    def in_rows(self) -> int:
        """Rows of in_proj of a block: z, x, B or C, dt."""
        return 2 * self.channels + self.maps + self.heads

    @property
    def local_parts(self) -> int:
        """Norm groups of a block's channels."""
        return max(1, self.sizes.groups // self.cluster)

    @property
    def outputs(self) -> int:
        """Outputs of a block, the last ones empty where they do not divide."""
        return -(-self.sizes.stack.n_outputs // self.cluster)

    @property
    def known(self) -> int:
        """Known inputs of a block, at least one, the last ones empty."""
        return max(1, -(-self.sizes.stack.n_inputs // self.cluster))

    @property
    def fed(self) -> int:
        """Numbers that a block adds to the next embedding."""
        return (self.outputs if self.sizes.stack.feeds_back else 0) + self.known

    def matrix(self, rows: int, columns: int) -> MatrixLayout:
        """Return how a matrix of a block lies."""
        return MatrixLayout.of(rows, columns, self.threads, self.weight_bytes)

    @property
    def in_matrix(self) -> MatrixLayout:
        """The layout of a block's rows of in_proj."""
        return self.matrix(self.in_rows, self.sizes.width)

    @property
    def out_matrix(self) -> MatrixLayout:
        """The layout of a block's columns of out_proj, those of one norm group."""
        return self.matrix(self.sizes.width, self.channels // self.local_parts)

    @property
    def head_matrix(self) -> MatrixLayout:
        """The layout of a block's rows of the head."""
        return self.matrix(self.outputs, self.sizes.width)

    @property
    def fed_matrix(self) -> MatrixLayout:
        """The layout of what makes the next embedding of a block's outputs and known inputs."""
        return self.matrix(self.sizes.width, self.fed)

    @property
    def own_rows(self) -> int:
        """Rows of the residual stream that a block adds up for all."""
        return -(-self.sizes.width // self.cluster)

    @property
    def stack_weights(self) -> int:
        """Weights of a block outside its layers."""
        return self.head_matrix.weights + self.fed_matrix.weights

    @property
    def layer_weights(self) -> int:
        """Weights of a block in one layer."""
        return self.in_matrix.weights + self.local_parts * self.out_matrix.weights

    @property
    def block_weights(self) -> int:
        """Weights of a block, all of them."""
        return self.stack_weights + self.sizes.layers * self.layer_weights

    @property
    def block_constants(self) -> int:
        """Numbers of a block that are always float32."""
        layer = (self.channels + self.maps) * (self.sizes.taps + 1) + 3 * self.heads
        return self.sizes.width + self.outputs + self.sizes.layers * layer

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        sizes = self.sizes
        parts = self.cluster * self.local_parts
        floats_per_series = (
            max(self.in_matrix.row_length, self.head_matrix.row_length)
            + self.local_parts * self.out_matrix.row_length
            + self.fed_matrix.row_length
            + sizes.maps
            + 2 * self.channels
            + 2 * self.heads
            + 2 * parts * (self.own_rows + 1)
            + (self.cluster + 1) * self.own_rows
            + sizes.layers * (self.channels + self.maps) * (sizes.taps - 1)
        )
        resident = self.stack_weights + self.resident_layers * self.layer_weights
        weight_floats = -(-resident * self.weight_bytes // 4)
        return 4 * (_ARRIVAL_FLOATS + self.series * floats_per_series + weight_floats + self.block_constants + 1)

    @property
    def threads_per_channel(self) -> int:
        """Threads that share the states of a channel: four states each where the state streams, else as few threads."""
        most = min(_WARP, max(1, self.threads // self.channels)) if self.state_in_registers else _WARP
        return _power_of_two(math.gcd(self.sizes.states // 4, _power_of_two(most)))

    @property
    def state_registers(self) -> int:
        """Registers of a thread that the state of all layers takes."""
        rounds = -(-self.channels // (self.threads // self.threads_per_channel))
        return self.sizes.layers * self.series * rounds * self.sizes.states // self.threads_per_channel

    def defines(self) -> Defines:
        """Return the macros that the kernel is compiled with."""
        return {
            **self.sizes.defines(self.weight_bytes),
            "LAYERS": str(self.sizes.layers),
            "FEEDBACK": str(int(self.sizes.stack.feeds_back)),
            "CLUSTER": str(self.cluster),
            "SERIES": str(self.series),
            "THREADS": str(self.threads),
            "THREADS_PER_CHANNEL": str(self.threads_per_channel),
            "RESIDENT_LAYERS": str(self.resident_layers),
            "STATE_IN_REGISTERS": str(int(self.state_in_registers)),
            "BLOCK_WEIGHTS": str(self.block_weights),
            "SHARED_BYTES": str(self.shared_bytes),
        }


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """One compiled shape of the prefill kernels.

    Attributes:
        sizes: sizes of the stack's kernels.
        weight_bytes: 4 for float weights, 2 for bfloat16.
        chunk: steps of a chunk of the scan.
        scan_threads, conv_threads: threads of a block.
        conv_run: steps that a block convolves.
        gemm_rows, gemm_columns: tile of a block of a product.
        gemm_depth: columns of the left matrix in shared memory at a time.
        gemm_thread_rows, gemm_thread_columns: tile of a thread.
    """

    sizes: KernelSizes
    weight_bytes: int
    chunk: int
    scan_threads: int = 128
    conv_threads: int = 128
    conv_run: int = 16
    gemm_rows: int = 128
    gemm_columns: int = 64
    gemm_depth: int = 16
    gemm_thread_rows: int = 8
    gemm_thread_columns: int = 4

    @property
    def gemm_threads(self) -> int:
        """Threads of a block of a product."""
        return self.gemm_rows // self.gemm_thread_rows * (self.gemm_columns // self.gemm_thread_columns)

    @property
    def gemm_shared_bytes(self) -> int:
        """Shared memory of a product."""
        return 4 * (self.gemm_depth * (self.gemm_rows + self.gemm_columns + 8) + self.gemm_rows)

    @property
    def add_shared_bytes(self) -> int:
        """Shared memory of `add_chunks`."""
        return 4 * self.chunk * (self.sizes.states + self.sizes.head_channels + 11)

    @property
    def read_shared_bytes(self) -> int:
        """Shared memory of `read_chunks`."""
        states, chunk, head = self.sizes.states, self.chunk, self.sizes.head_channels + 4
        return 4 * (2 * states * (chunk + 4) + states * head + chunk * (chunk + 4 + head + 3))

    def defines(self) -> Defines:
        """Return the macros that the kernels are compiled with."""
        fields = {
            "CHUNK": self.chunk,
            "SCAN_THREADS": self.scan_threads,
            "CONV_THREADS": self.conv_threads,
            "CONV_RUN": self.conv_run,
            "GEMM_ROWS": self.gemm_rows,
            "GEMM_COLUMNS": self.gemm_columns,
            "GEMM_DEPTH": self.gemm_depth,
            "GEMM_THREAD_ROWS": self.gemm_thread_rows,
            "GEMM_THREAD_COLUMNS": self.gemm_thread_columns,
            "GEMM_THREADS": self.gemm_threads,
            "GEMM_SHARED_BYTES": self.gemm_shared_bytes,
            "ADD_SHARED_BYTES": self.add_shared_bytes,
            "READ_SHARED_BYTES": self.read_shared_bytes,
        }
        return {
            **self.sizes.defines(self.weight_bytes),
            **{name: str(value) for name, value in fields.items()},
        }


def plan_prefill(stack: StackSizes, weight_bytes: int, limits: DeviceLimits) -> PrefillPlan:
    """Return the prefill with the longest chunk that fits; `config.chunk_size` is for backends with a choice.

    Raises:
        KernelInputError: not even the shortest chunk fits into shared memory.
    """
    for chunk in _CHUNKS:
        plan = PrefillPlan(KernelSizes.of(stack), weight_bytes, chunk)
        if max(plan.read_shared_bytes, plan.add_shared_bytes) <= limits.shared_bytes:
            return plan
    raise KernelInputError(
        f"headdim {stack.config.headdim} with d_state {stack.config.d_state} needs more than the "
        f"{limits.shared_bytes} bytes of shared memory of a block; use the backend cpu or reference"
    )


def plan_rollouts(stack: StackSizes, weight_bytes: int, limits: DeviceLimits) -> Iterator[RolloutPlan]:
    """Yield the plans of a single series, best first: the smallest cluster that holds all weights, else the largest.

    A GPU may refuse a cluster of 16; the next plan then is for a smaller one. The plan never depends on the batch, so
    that the bits of a series do not either.

    Raises:
        KernelInputError: no cluster can hold even the activations.
    """
    sizes = KernelSizes.of(stack)
    clusters = (*_PORTABLE_CLUSTERS, _LARGEST_CLUSTER) if limits.has_clusters else (1,)
    plans = [plan for cluster in clusters if (plan := _plan_cluster(sizes, weight_bytes, limits, cluster)) is not None]
    if not plans:
        raise KernelInputError(
            f"a rollout of d_model {sizes.width} with {stack.n_outputs} outputs needs more than the "
            f"{limits.shared_bytes} bytes of shared memory of a block; use the backend cpu or reference"
        )
    whole = [plan for plan in plans if plan.resident_layers == sizes.layers]
    yield from whole
    yield from reversed([plan for plan in plans if plan not in whole])


def widen(plan: RolloutPlan, limits: DeviceLimits) -> list[RolloutPlan]:
    """Return the plan for each number of series at once that keeps weights and state where they are, fewest first."""
    wider = []
    for series in _SERIES_AT_ONCE:
        candidate = replace(plan, series=series)
        fits = candidate.shared_bytes <= limits.shared_bytes
        if fits and (not plan.state_in_registers or candidate.state_registers <= _STATE_REGISTERS):
            wider.append(candidate)
    return wider


def _plan_cluster(sizes: KernelSizes, weight_bytes: int, limits: DeviceLimits, cluster: int) -> RolloutPlan | None:
    """Return the plan for clusters of this size, or None if the stack cannot be cut so or does not fit."""
    channels = sizes.inner // cluster
    if sizes.inner % cluster or sizes.maps % cluster or sizes.width < cluster:
        return None
    if channels % sizes.head_channels and sizes.head_channels % channels:
        return None
    if sizes.groups % cluster and cluster % sizes.groups:
        return None
    threads = max(64, min(_MOST_THREADS, channels * sizes.states // 4 // _WARP * _WARP))
    plan = RolloutPlan(sizes, weight_bytes, cluster, 1, threads, 0, state_in_registers=True)
    spare = limits.shared_bytes - plan.shared_bytes
    if spare < 0:
        return None
    resident = min(sizes.layers, spare // (plan.layer_weights * weight_bytes))
    return replace(plan, resident_layers=resident, state_in_registers=plan.state_registers <= _STATE_REGISTERS)


def _float(value: float) -> str:
    return f"{value!r}f" if "." in repr(value) or "e" in repr(value) else f"{value!r}.0f"


def _power_of_two(value: int) -> int:
    """Return the largest power of two that is not above `value`."""
    return 1 << (value.bit_length() - 1)
