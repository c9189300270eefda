"""The `cpu` backend behind the contract: checks, packing, and the loop over chunks; the steps themselves run in C++.

Environment variables:
    GRAPHTIDE_CPU_ISA: kernels to use (avx512_bf16, avx512_vnni, avx512, avx2, portable) instead of the best that the
        processor has; avx512_amx, which no processor has run yet, is used only when it is named here.
    GRAPHTIDE_CPU_THREADS: threads that share every batch of series, instead of as many as prove faster (see `threads`);
        a single series always runs on one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mamba2.kernels.contract import (
    BackendUnavailableError,
    RolloutCancelled,
    StackSizes,
    StackWeights,
    check_call,
    check_precision,
)
from models.mamba2.kernels.cpu.cores import usable_cores
from models.mamba2.kernels.cpu.threads import Advance, FixedCall, Threads, TriedCall, describe
from models.mamba2.state import Mamba2State

try:
    from models.mamba2.kernels.cpu import _native, packing
except ImportError as error:
    _IMPORT_ERROR: ImportError | None = error
else:
    _IMPORT_ERROR = None

ISA_VARIABLE = "GRAPHTIDE_CPU_ISA"
THREADS_VARIABLE = "GRAPHTIDE_CPU_THREADS"
MAX_THREADS = 256
_MOST_DIGITS = 9


class CpuBackend:
    """C++ kernels for x86-64 (AVX-512 with and without BF16, VNNI and AMX, AVX2) and any other processor."""

    name = "cpu"

    def unavailable(self) -> str | None:
        """Return why the kernels cannot be used here and what helps, or None if they can."""
        if _IMPORT_ERROR is not None:
            return (
                f"its compiled part is missing ({_IMPORT_ERROR}), so rollouts on the CPU run far slower. "
                "Install a C++17 compiler, then install graphtide again with `pip install --force-reinstall --no-deps` "
                "or `uv sync --reinstall-package graphtide`"
            )
        return self.wrong_setting()

    def wrong_setting(self) -> str | None:
        """See `contract.Backend.wrong_setting`; without the compiled part no setting is right or wrong."""
        if _IMPORT_ERROR is not None:
            return None
        forced = os.environ.get(ISA_VARIABLE, "")
        if forced and forced not in (usable := _native.usable_kernels()):
            return (
                f"{ISA_VARIABLE}={forced}, but this processor and build have {', '.join(usable)}; "
                "name one of these, or unset it"
            )
        try:
            _forced_threads()
        except ValueError as error:
            return str(error)
        return None

    def pack(self, weights: StackWeights, precision: str = "fp32") -> "CpuStack":
        """See `contract.Backend.pack`."""
        if (reason := self.unavailable()) is not None:
            raise BackendUnavailableError(f"backend cpu cannot run here: {reason}")
        check_precision(precision)
        weights.validate()
        return CpuStack(
            weights.sizes,
            packing.native_stack(weights, precision, os.environ.get(ISA_VARIABLE, "")),
            Threads(_forced_threads(), usable_cores()),
        )

    def threads(self) -> str:
        """Say how many threads calls run on, or how that is found; `wrong_setting` must be None."""
        return describe(_forced_threads(), usable_cores())


@dataclass(frozen=True, slots=True)
class Floor:
    """What the memory of this machine allows for one step of one series, measured now.

    Attributes:
        seconds: time to read the weights once and to read and change the state once, both warm, as every step must.
        weight_bytes, state_bytes: what is moved; of matrices whose reading some steps share, the part of one.
        multiply_adds: of a step of each of many series, in products of matrices.
    """

    seconds: float
    weight_bytes: int
    state_bytes: int
    multiply_adds: int


class CpuStack:
    """A packed stack; see `contract.PackedStack`.

    Prefill and rollout give the same bits, whatever the chunks, the batch and the threads, and however steps are cut
    into calls. But for one: where a closed loop has many outputs (`shortcuts.find_returned`), the first step of a call
    has its feedback from the outputs that it is given, the others from the hidden state, and last bits may differ.
    """

    def __init__(self, sizes: StackSizes, native: "_native.Stack", threads: Threads) -> None:
        self.sizes = sizes
        self._native = native
        self._threads = threads

    @property
    def isa(self) -> str:
        """The kernels that this stack runs with."""
        return self._native.isa

    def floor(self, repeats: int = 50) -> Floor:
        """Measure the time below which no step can go, in this process, on this core."""
        native = self._native
        seconds = _native.floor_seconds(native.weight_bytes, native.state_bytes, repeats, native.isa)
        return Floor(seconds, native.weight_bytes, native.state_bytes, native.multiply_adds)

    def prefill(self, inputs_BLF: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """See `contract.PackedStack.prefill`."""
        check_call(self.sizes, inputs_BLF, state)
        batch, steps, _ = inputs_BLF.shape
        call = self._threads.call(batch, False)
        session = self._session(call, inputs_BLF, state)
        outputs_BLR = _outputs(batch, steps, self.sizes.n_outputs)
        call.run(0, steps, _advance(session, _array(inputs_BLF), outputs_BLR.numpy(), False))
        return outputs_BLR, self._state_of(session, batch)

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
        """See `contract.PackedStack.rollout`."""
        check_call(self.sizes, inputs_BTF, state, previous_BR=previous_BR, chunk_steps=chunk_steps)
        batch, steps, _ = inputs_BTF.shape
        call = self._threads.call(batch, self.sizes.feeds_back)
        session = self._session(call, inputs_BTF, state)
        if previous_BR is not None:
            session.set_previous(_array(previous_BR))
        outputs_BTR = _outputs(batch, steps, self.sizes.n_outputs)
        advance = _advance(session, _array(inputs_BTF), outputs_BTR.numpy(), self.sizes.feeds_back)
        for first in range(0, steps, chunk_steps):
            if cancelled is not None and cancelled():
                raise RolloutCancelled
            done = min(first + chunk_steps, steps)
            call.run(first, done, advance)
            if on_chunk is not None:
                on_chunk(done)
        return outputs_BTR, self._state_of(session, batch)

    def _session(self, call: FixedCall | TriedCall, inputs: Tensor, state: Mamba2State) -> "_native.Session":
        session = _native.Session(self._native, len(inputs), call.first_threads)
        for index, layer in enumerate(state.layers):
            session.load(index, _array(layer.conv_BCK), _array(layer.ssm_BHPN))
        return session

    def _state_of(self, session: "_native.Session", batch: int) -> Mamba2State:
        state = Mamba2State.zeros(self.sizes.config, batch, device="cpu")
        for index, layer in enumerate(state.layers):
            session.save(index, layer.conv_BCK.numpy(), layer.ssm_BHPN.numpy())
        return state


def _advance(
    session: "_native.Session", inputs: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32], feed_back: bool
) -> Advance:
    def advance(begin: int, end: int, threads: int) -> None:
        session.threads = threads
        session.advance(inputs, outputs, begin, end, feed_back)

    return advance


def _outputs(batch: int, steps: int, width: int) -> Tensor:
    # What torch takes for a default may be any dtype and device.
    return torch.empty(batch, steps, width, dtype=torch.float32, device="cpu")


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().resolve_neg().contiguous().numpy()
    return array


def _forced_threads() -> int | None:
    text = os.environ.get(THREADS_VARIABLE)
    if text is None:
        return None
    # A long row of digits is refused by its length: Python reads no number of thousands of them.
    if not text.isdecimal() or len(text) > _MOST_DIGITS or not 1 <= int(text) <= MAX_THREADS:
        raise ValueError(
            f"{THREADS_VARIABLE}={text} is no number of threads from 1 to {MAX_THREADS}; set one, or unset it"
        )
    return int(text)
