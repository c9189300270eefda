"""What is no tensor, no state or no number is refused with a message that names it and what would help."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.mamba2.kernels.contract import Backend, KernelInputError
from models.mamba2.kernels.cpu.backend import CpuBackend
from models.mamba2.kernels.cuda.backend import CudaBackend
from models.mamba2.kernels.torch_backend import ReferenceBackend
from models.mamba2.state import Mamba2State
from tests.kernels.cuda_emulation import EmulatedDevice
from tests.kernels.stacks import PLAIN, assert_call_refused, make_inputs, make_state, make_weights


@pytest.fixture(params=["reference", "cpu", "cuda"])
def backend(request: pytest.FixtureRequest, require: Callable[[str, bool, str], None]) -> Backend:
    """Return a backend; nothing here gets as far as a kernel, so that none is compiled."""
    backends = {
        "reference": ReferenceBackend(),
        "cpu": CpuBackend(),
        "cuda": CudaBackend(EmulatedDevice(Path("nowhere"), "no-compiler")),
    }
    found: Backend = backends[request.param]
    require(found.name, found.unavailable() is None, str(found.unavailable()))
    return found


BAD_CALLS: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], str]] = {
    "an array": (
        lambda inputs, state: (inputs.numpy(), state),
        r"the inputs must be a torch tensor, not numpy\.ndarray",
    ),
    "a list": (
        lambda inputs, state: (inputs.tolist(), state),
        "the inputs must be a torch tensor, not list; torch.as_t",
    ),
    "nothing": (lambda _inputs, state: (None, state), "the inputs must be a torch tensor, not None"),
    "sparse inputs": (
        lambda inputs, state: (inputs.to_sparse(), state),
        "the inputs must be a dense tensor, not sparse",
    ),
    "nested inputs": (
        lambda inputs, state: (torch.nested.nested_tensor(list(inputs)), state),
        "the inputs must be a dense tensor, not nested; to_padded_tensor",
    ),
    "no state": (lambda inputs, _state: (inputs, None), "the state is None, not a Mamba2State; Mamba2State.zeros"),
    "a state without layers": (lambda inputs, _state: (inputs, Mamba2State(())), "the state has 0 layers"),
    "layers of nothing": (lambda inputs, _state: (inputs, Mamba2State((None, None))), "layer 0 of the state is None"),
    "a state of arrays": (
        lambda inputs, state: (inputs, state.map(torch.Tensor.numpy)),
        r"the conv state of layer 0 must be a torch tensor, not numpy\.ndarray",
    ),
    "a sparse state": (
        lambda inputs, state: (inputs, state.map(torch.Tensor.to_sparse)),
        "the conv state of layer 0 must be a dense tensor, not sparse",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("spoil", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_what_is_no_tensor_is_refused(
    backend: Backend, spoil: Callable[[Any, Any], tuple[Any, Any]], message: str
) -> None:
    assert_call_refused(backend, spoil, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_steps": 1.5}, r"chunk_steps must be an integer of at least 1, not 1\.5"),
        ({"chunk_steps": "3"}, "chunk_steps must be an integer of at least 1, not '3'"),
        ({"chunk_steps": None}, "chunk_steps must be an integer of at least 1, not None"),
        ({"chunk_steps": 0}, "chunk_steps must be an integer of at least 1, not 0"),
        ({"previous_BR": np.zeros((2, 3), np.float32)}, r"the previous outputs must be a torch tensor, not numpy\.nd"),
        ({"previous_BR": torch.zeros(2, 3).to_sparse()}, "the previous outputs must be a dense tensor"),
    ],
)
def test_options_of_another_kind_are_refused(backend: Backend, options: dict[str, Any], message: str) -> None:
    weights = make_weights(PLAIN, feeds_back=True)
    with pytest.raises(KernelInputError, match=message):
        backend.pack(weights).rollout(make_inputs(weights, 2, 4), make_state(PLAIN, 2), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_bias_R": None}, "head_bias_R must be a torch tensor, not None"),
        ({"input_weight_DF": None}, "input_weight_DF must be a torch tensor, not None"),
        ({"input_weight_DF": np.zeros((32, 5), np.float32)}, r"input_weight_DF must be a torch tensor, not numpy\.nd"),
        ({"input_bias_D": torch.zeros(32).to_sparse()}, "input_bias_D must be a dense tensor"),
    ],
)
def test_weights_of_another_kind_are_refused(backend: Backend, change: dict[str, Any], message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        backend.pack(replace(make_weights(PLAIN), **change))


def test_a_missing_matrix_of_the_core_is_refused(backend: Backend) -> None:
    weights = make_weights(PLAIN)
    weights.core["layers.1.mixer.D"] = None
    with pytest.raises(KernelInputError, match=r"layers\.1\.mixer\.D must be a torch tensor, not None"):
        backend.pack(weights)


def test_a_rate_of_decay_that_is_not_finite_is_refused(backend: Backend) -> None:
    weights = make_weights(PLAIN)
    weights.core["layers.1.mixer.A_log"].fill_(88.7)
    backend.pack(weights)
    weights.core["layers.1.mixer.A_log"][-1] = 89
    with pytest.raises(KernelInputError, match=r"layers\.1\.mixer\.A_log holds 89, .*keep A_log below 88\.7"):
        backend.pack(weights)
