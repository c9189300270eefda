"""The floor of a step on the CPU: what memory and arithmetic of this core allow, measured in the same process."""

from forecasting.bench.stacks import StackSpec
from models.mamba2.kernels.contract import PackedStack
from models.mamba2.kernels.cpu.backend import CpuStack

# Of one element of the state: x B, decay and sum, product with C and sum.
_STATE_OPERATIONS = 3


def step_seconds(packed: PackedStack, spec: StackSpec) -> float:
    """Return the seconds below which no step of all series can go.

    One series must read every weight that a step needs for itself and read and write its state, in the memory where
    they lie (measured in one pass, so that both compete for the caches). Many series share the reading; then the
    multiply-adds of single precision are the bound, or the traffic of the states from the nearest cache.

    Raises:
        ValueError: the stack is not one of the compiled kernels, which bring the probes.
    """
    if not isinstance(packed, CpuStack):
        raise ValueError("the floor is measured by the compiled kernels, with which this stack does not run")
    from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - not there without a compiler

    one = packed.floor(repeats=200)
    if spec.batch == 1:
        return one.seconds
    config = spec.config
    state = config.n_layers * config.n_heads * config.headdim * config.d_state
    operations = one.multiply_adds + _STATE_OPERATIONS * state
    arithmetic_s = spec.batch * operations / _native.multiply_adds_per_second(20, packed.isa)
    weights_s = _native.floor_seconds(one.weight_bytes, 0, 50, packed.isa)
    state_s = _native.floor_seconds(0, one.state_bytes, 50, packed.isa)
    return max(arithmetic_s, weights_s + spec.batch * state_s)
