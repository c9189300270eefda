"""What the kernels know of a stack and a GPU, and how a prefill is laid over it; all fixed when kernels compile.

The formulas of lengths and offsets stand in the kernels too, which assert that both sides agree.
"""

from dataclasses import dataclass
from typing import Self

from models.mamba2.kernels.contract import KernelInputError, StackSizes

Defines = dict[str, str]

WARP = 32
_CHUNKS = (64, 32, 16)


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
        gemm_warp_rows, gemm_warp_columns: tile of a warp.
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
    gemm_warp_rows: int = 32
    gemm_warp_columns: int = 32

    @property
    def gemm_threads(self) -> int:
        """Threads of a block of a product."""
        return WARP * (self.gemm_rows // self.gemm_warp_rows) * (self.gemm_columns // self.gemm_warp_columns)

    @property
    def gemm_shared_bytes(self) -> int:
        """Shared memory of a product."""
        return 4 * ((self.gemm_depth + 4) * (self.gemm_rows + self.gemm_columns) + self.gemm_rows)

    @property
    def add_shared_bytes(self) -> int:
        """Shared memory of `add_chunks`."""
        return 4 * self.chunk * (_spread(self.sizes.states) + _spread(self.sizes.head_channels) + 3)

    @property
    def read_shared_bytes(self) -> int:
        """Shared memory of `read_chunks`."""
        steps, head = _spread(self.chunk), _spread(self.sizes.head_channels)
        return 4 * (self.sizes.states * (2 * steps + head) + self.chunk * (steps + head + 3))

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
            "GEMM_WARP_ROWS": self.gemm_warp_rows,
            "GEMM_WARP_COLUMNS": self.gemm_warp_columns,
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


def _float(value: float) -> str:
    return f"{value!r}f" if "." in repr(value) or "e" in repr(value) else f"{value!r}.0f"


def _spread(length: int) -> int:
    """Return the stride of rows of this length in shared memory; `scan.cuh` has the same rule."""
    return (length + 23) // 32 * 32 + 8
