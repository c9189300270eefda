"""The compiled part; see `bindings.cpp`. Arrays are contiguous; their sizes are those of `Sizes`, padded."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

class Sizes:
    """Sizes of a stack and what they are padded to (`model.hpp`); ValueError if one is out of range."""

    width: int
    lanes: int
    states: int
    inner: int
    conv: int
    dt: int
    proj: int
    inputs: int
    outputs: int
    opened: int
    def __init__(
        self,
        *,
        d_model: int,
        n_layers: int,
        d_state: int,
        headdim: int,
        n_heads: int,
        n_groups: int,
        d_conv: int,
        n_inputs: int,
        n_outputs: int,
        feeds_back: bool,
        n_opened: int,
        dt_low: float,
        dt_high: float,
        norm_eps: float,
    ) -> None: ...

class Matrix:
    """A copied matrix [rows, columns] in one of three formats."""

    @staticmethod
    def fp32(data: Floats) -> Matrix: ...
    @staticmethod
    def bf16(data: npt.NDArray[np.uint16]) -> Matrix: ...
    @staticmethod
    def int8(data: npt.NDArray[np.int8], steps: Floats) -> Matrix: ...

class Layer:
    """The weights of one layer."""

    def __init__(
        self,
        *,
        in_proj: Matrix,
        out_proj: Matrix,
        conv_weight: Floats,
        conv_bias: Floats,
        dt_bias: Floats,
        rate: Floats,
        skip: Floats,
    ) -> None: ...

class Stack:
    """Packed weights; immutable. ValueError if a size is wrong or the instruction set cannot be used.

    Attributes:
        isa: the kernels that run it.
        weight_bytes: what a step of one series, which is alone in a closed loop, reads of the weights.
        state_bytes: what it reads and writes of its state.
        multiply_adds: of a step of each of many series, in products of matrices; padding does not count.
    """

    isa: str
    weight_bytes: int
    state_bytes: int
    multiply_adds: int
    def __init__(
        self,
        *,
        sizes: Sizes,
        layers: list[Layer],
        embed: Matrix,
        embed_bias: Floats,
        head: Matrix,
        head_bias: Floats,
        feedback: Matrix | None,
        returned: Matrix | None,
        returned_bias: Floats,
        isa: str,
    ) -> None: ...

class Session:
    """The states of a batch of series.

    Attributes:
        threads: that share the next calls of `advance`, at first as many as given; ValueError below 1.
    """

    threads: int
    def __init__(self, stack: Stack, batch: int, threads: int) -> None: ...
    def load(self, layer: int, conv: Floats, ssm: Floats) -> None: ...
    def save(self, layer: int, conv: Floats, ssm: Floats) -> None: ...
    def set_previous(self, previous: Floats) -> None: ...
    def advance(self, inputs: Floats, outputs: Floats, begin: int, end: int, feed_back: bool) -> None: ...

def usable_kernels() -> list[str]: ...
def floor_seconds(weight_bytes: int, state_bytes: int, repeats: int = 50, isa: str = "") -> float: ...
def multiply_adds_per_second(repeats: int = 20, isa: str = "") -> float: ...
