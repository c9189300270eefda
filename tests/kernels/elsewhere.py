"""The CPU kernels on a processor that this machine only emulates: what `_native` offers, by a program of its own.

`models.mamba2.kernels.cpu` packs, checks and cuts calls as ever; only the module below it is another one.
"""

import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from models.mamba2.kernels.cpu import backend

SOURCES = Path(__file__).parents[2] / "models" / "mamba2" / "kernels" / "cpu"
FORMATS = {"fp32": 0, "bf16": 1, "int8": 2}
LAYER_VECTORS = ("conv_weight", "conv_bias", "dt_bias", "rate", "skip")


def build(compiler: str, folder: Path, units: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """Compile units of the kernels with `elsewhere.cpp`; warnings are errors."""
    program = folder / "elsewhere"
    sources = [Path(__file__).with_suffix(".cpp"), *(SOURCES / f"{name}.cpp" for name in ("stack", *units))]
    # As in models/mamba2/kernels/cpu/CMakeLists.txt.
    common = ["-std=c++17", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([compiler, *common, *flags, f"-I{SOURCES}", *sources, "-o", program], check=True)
    return program


@contextmanager
def backend_elsewhere(command: Sequence[str | Path], isa: str) -> Iterator[backend.CpuBackend]:
    """Yield the `cpu` backend above the program that `build` made, run by `command`; `isa` names its kernels."""
    from models.mamba2.kernels.cpu import packing  # noqa: PLC0415 - not there without a compiler

    with pytest.MonkeyPatch.context() as patch, Elsewhere(command, isa) as native:
        for name in (backend.ISA_VARIABLE, backend.THREADS_VARIABLE):
            patch.delenv(name, raising=False)
        patch.setattr(backend, "_native", native)
        patch.setattr(packing, "_native", native)
        yield backend.CpuBackend()


def packed(array: npt.NDArray[Any]) -> bytes:
    """Return an array as the program reads it."""
    return struct.pack("<q", array.size) + np.ascontiguousarray(array).tobytes()


class Matrix:
    """A matrix in one of the formats."""

    def __init__(self, form: str, data: npt.NDArray[Any], steps: npt.NDArray[np.float32] | None = None) -> None:
        shape = struct.pack("<3i", FORMATS[form], *data.shape)
        raw = data.view(np.uint8).reshape(-1) if data.size else np.zeros(0, np.uint8)
        self.packed = shape + packed(raw) + packed(np.zeros(0, np.float32) if steps is None else steps)

    @classmethod
    def fp32(cls, data: npt.NDArray[np.float32]) -> Self:
        return cls("fp32", data)

    @classmethod
    def bf16(cls, data: npt.NDArray[np.uint16]) -> Self:
        return cls("bf16", data)

    @classmethod
    def int8(cls, data: npt.NDArray[np.int8], steps: npt.NDArray[np.float32]) -> Self:
        return cls("int8", data, steps)


class Sizes:
    """The sizes of a stack; what they are padded to is the same on every processor."""

    def __init__(self, **given: Any) -> None:
        from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - not there without a compiler

        self.given = given
        self._padded = _native.Sizes(**given)

    def __getattr__(self, name: str) -> int:
        size: int = getattr(self._padded, name)
        return size

    @property
    def packed(self) -> bytes:
        *counts, low, high, epsilon = self.given.values()
        return struct.pack("<11i3f", *counts, low, high, epsilon)


class Layer:
    """The weights of a layer."""

    def __init__(self, *, in_proj: Matrix, out_proj: Matrix, **vectors: npt.NDArray[np.float32]) -> None:
        self.packed = in_proj.packed + out_proj.packed + b"".join(packed(vectors[name]) for name in LAYER_VECTORS)


class Elsewhere:
    """Stands in for the module `_native`; stacks that it makes live until its block ends.

    Args:
        command: runs the program that `build` made.
        isa: the name of its kernels.
    """

    Matrix, Layer, Sizes = Matrix, Layer, Sizes

    def __init__(self, command: Sequence[str | Path], isa: str) -> None:
        self._command = command
        self._isa = isa
        self._stacks: list[StackElsewhere] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stack in self._stacks:
            stack.close()

    def usable_kernels(self) -> list[str]:
        return [self._isa]

    def Stack(self, **given: Any) -> "StackElsewhere":
        self._stacks.append(StackElsewhere(self._command, **{**given, "isa": self._isa}))
        return self._stacks[-1]

    def Session(self, stack: "StackElsewhere", batch: int, threads: int) -> "SessionElsewhere":
        return SessionElsewhere(stack, batch, threads)


class StackElsewhere:
    """A packed stack in a process of its own, which serves one session at a time."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        sizes: Sizes,
        layers: Sequence[Layer],
        embed: Matrix,
        embed_bias: npt.NDArray[np.float32],
        head: Matrix,
        head_bias: npt.NDArray[np.float32],
        feedback: Matrix | None,
        returned: Matrix | None,
        returned_bias: npt.NDArray[np.float32],
        isa: str,
    ) -> None:
        self.sizes = sizes
        self.isa = isa
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.order(sizes.packed, *(layer.packed for layer in layers))
        self.order(embed.packed, packed(embed_bias), head.packed, packed(head_bias))
        for matrix in (feedback, returned):
            self.order(struct.pack("<i", matrix is not None), b"" if matrix is None else matrix.packed)
        self.order(packed(returned_bias))

    def order(self, *parts: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"".join(parts))
        self._process.stdin.flush()

    def answer(self, into: npt.NDArray[np.float32]) -> None:
        assert self._process.stdout is not None
        read = self._process.stdout.read(into.nbytes)
        assert len(read) == into.nbytes, f"the program ended with {self._process.wait()}"
        into[...] = np.frombuffer(read, np.float32).reshape(into.shape)

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


class SessionElsewhere:
    """The states of a batch of series."""

    def __init__(self, stack: StackElsewhere, batch: int, threads: int) -> None:
        self._stack = stack
        stack.order(b"n", struct.pack("<2i", batch, threads))

    def load(self, layer: int, conv: npt.NDArray[np.float32], ssm: npt.NDArray[np.float32]) -> None:
        self._stack.order(b"l", struct.pack("<i", layer), packed(conv), packed(ssm))

    def save(self, layer: int, conv: npt.NDArray[np.float32], ssm: npt.NDArray[np.float32]) -> None:
        self._stack.order(b"s", struct.pack("<i", layer))
        self._stack.answer(conv)
        self._stack.answer(ssm)

    def set_previous(self, previous: npt.NDArray[np.float32]) -> None:
        self._stack.order(b"p", packed(previous))

    def advance(
        self,
        inputs: npt.NDArray[np.float32],
        outputs: npt.NDArray[np.float32],
        begin: int,
        end: int,
        feed_back: bool,
    ) -> None:
        self._stack.order(b"a", struct.pack("<4i", inputs.shape[1], begin, end, feed_back), packed(inputs))
        self._stack.answer(outputs[:, begin:end])

    def tiny(self) -> float:
        """Return what 1e-40 times 1 is in the process, outside of a call."""
        self._stack.order(b"t")
        found = np.zeros(1, np.float32)
        self._stack.answer(found)
        return float(found[0])
