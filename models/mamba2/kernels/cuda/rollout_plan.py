"""How a rollout is laid over a GPU: cluster, threads, what stays in shared memory, how its matrices lie.

The formulas of lengths and offsets stand in the kernels too, which assert that both sides agree.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from models.mamba2.kernels.contract import KernelInputError, StackSizes
from models.mamba2.kernels.cuda.plan import WARP, Defines, DeviceLimits, KernelSizes

# Rows and columns of what tensor cores multiply at once.
TILE = 16
_MOST_THREADS = 512
# Registers of a thread that hold state; beyond, what is left of 65,536 / 512 = 128 no longer holds the rest.
_STATE_REGISTERS = 64
_PORTABLE_CLUSTERS = (1, 2, 4, 8)
_LARGEST_CLUSTER = 16
_SERIES_AT_ONCE = (1, 2, 4)
# Four counters of 8 bytes.
_ARRIVAL_FLOATS = 8


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How a matrix of a rollout lies in memory that is multiplied row by row; `matvec.cuh` has the same rule.

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
        while lanes < WARP and 2 * lanes * vector <= columns and rows * lanes <= threads:
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
class TileLayout:
    """How a matrix lies that is multiplied by tensor cores, in tiles of 16 x 16; `matvec.cuh` has the same rule.

    Attributes:
        rows, columns: of the matrix.
    """

    rows: int
    columns: int

    @property
    def row_length(self) -> int:
        """Columns with padding."""
        return -(-self.columns // TILE) * TILE

    @property
    def padded_rows(self) -> int:
        """Rows with padding."""
        return -(-self.rows // TILE) * TILE

    @property
    def weights(self) -> int:
        """Weights with padding."""
        return self.padded_rows * self.row_length


MatrixLayout = RowLayout | TileLayout


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

    def _rows_of(self, rows: int, columns: int) -> RowLayout:
        return RowLayout.of(rows, columns, self.threads, self.weight_bytes)

    def _layer_matrix(self, rows: int, columns: int) -> MatrixLayout:
        return TileLayout(rows, columns) if self.weight_bytes == 2 else self._rows_of(rows, columns)

    @property
    def in_matrix(self) -> MatrixLayout:
        """The layout of a block's rows of in_proj."""
        return self._layer_matrix(self.in_rows, self.sizes.width)

    @property
    def out_matrix(self) -> MatrixLayout:
        """The layout of a block's columns of out_proj, those of one norm group."""
        return self._layer_matrix(self.sizes.width, self.channels // self.local_parts)

    @property
    def head_matrix(self) -> RowLayout:
        """The layout of a block's rows of the head."""
        return self._rows_of(self.outputs, self.sizes.width)

    @property
    def fed_matrix(self) -> RowLayout:
        """The layout of what makes the next embedding of a block's outputs and known inputs."""
        return self._rows_of(self.sizes.width, self.fed)

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
        most = min(WARP, max(1, self.threads // self.channels)) if self.state_in_registers else WARP
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
    threads = max(64, min(_MOST_THREADS, channels * sizes.states // 4 // WARP * WARP))
    plan = RolloutPlan(sizes, weight_bytes, cluster, 1, threads, 0, state_in_registers=True)
    spare = limits.shared_bytes - plan.shared_bytes
    if spare < 0:
        return None
    resident = min(sizes.layers, spare // (plan.layer_weights * weight_bytes))
    return replace(plan, resident_layers=resident, state_in_registers=plan.state_registers <= _STATE_REGISTERS)


def _power_of_two(value: int) -> int:
    """Return the largest power of two that is not above `value`."""
    return 1 << (value.bit_length() - 1)
