"""What a caller sets in torch for all its code (default dtype and device, autocast) changes no result of a backend."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.mamba2.kernels.contract import PRECISIONS, PackedStack, StackWeights
from models.mamba2.kernels.cpu.backend import CpuBackend
from models.mamba2.kernels.cuda.backend import CudaBackend
from models.mamba2.kernels.torch_backend import ReferenceBackend
from tests.kernels.cuda_emulation import EmulatedDevice
from tests.kernels.stacks import ODD, PLAIN, make_inputs, make_state, make_weights, tensors_of

Pack = Callable[[StackWeights, str], PackedStack]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    # Stands for a GPU: no value can come from there.
    "another device by default": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(params=["reference", "cpu"])
def pack(request: pytest.FixtureRequest, require: Callable[[str, bool, str], None]) -> Pack:
    """Return how a backend packs."""
    if request.param == "reference":
        return ReferenceBackend().pack
    backend = CpuBackend()
    require("cpu", backend.unavailable() is None, str(backend.unavailable()))
    return backend.pack


def results(stack: PackedStack, inputs: Tensor) -> dict[str, Tensor]:
    state = make_state(stack.sizes.config, len(inputs))
    rolled, filled = stack.rollout(inputs, state), stack.prefill(inputs, state)
    return {**tensors_of(*rolled), **{f"prefill {name}": tensor for name, tensor in tensors_of(*filled).items()}}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, tensor in theirs.items():
        assert ours[name].dtype == torch.float32, name
        assert torch.equal(ours[name], tensor), f"{name} differs"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_torch_is_set_to_changes_no_bit(pack: Pack, setting: str, precision: str) -> None:
    weights = make_weights(PLAIN, feeds_back=True)
    inputs = make_inputs(weights, 2, 12)
    stack = pack(weights, precision)
    state = make_state(PLAIN, 2)
    expected, filled = stack.rollout(inputs, state), stack.prefill(inputs, state)
    with SETTINGS[setting]():
        for packed in (stack, pack(weights, precision)):
            assert_same(tensors_of(*packed.rollout(inputs, state)), tensors_of(*expected))
            assert_same(tensors_of(*packed.prefill(inputs, state)), tensors_of(*filled))


@pytest.mark.parametrize("setting", SETTINGS)
def test_nor_of_the_kernels_of_a_gpu(setting: str, tmp_path_factory: pytest.TempPathFactory, compiler: str) -> None:
    device = EmulatedDevice(emulated_folder(tmp_path_factory), compiler)
    weights = make_weights(replace(PLAIN, d_model=8, headdim=8, n_layers=1), feeds_back=True)
    inputs, state = make_inputs(weights, 1, 2), make_state(weights.config, 1)
    stack = CudaBackend(device).pack(weights)
    expected, filled = stack.rollout(inputs, state), stack.prefill(inputs, state)
    with SETTINGS[setting]():
        packed = CudaBackend(device).pack(weights)
        assert_same(tensors_of(*packed.rollout(inputs, state)), tensors_of(*expected))
        assert_same(tensors_of(*packed.prefill(inputs, state)), tensors_of(*filled))


def emulated_folder(factory: pytest.TempPathFactory) -> Path:
    """Return one folder for all settings, so that the kernels are compiled once."""
    folder = factory.getbasetemp() / "settings"
    folder.mkdir(exist_ok=True)
    return folder


def test_the_caller_s_autocast_holds_in_its_own_code() -> None:
    weights, seen = make_weights(PLAIN, feeds_back=True), []
    stack = ReferenceBackend().pack(weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stack.rollout(
            make_inputs(weights, 1, 2),
            make_state(PLAIN, 1),
            on_chunk=lambda _done: seen.append(torch.is_autocast_enabled("cpu")),
        )
    assert seen == [True]


def test_weights_that_are_parameters_are_taken(pack: Pack) -> None:
    plain = make_weights(ODD, feeds_back=True)
    names = [field.name for field in fields(plain) if field.name not in {"config", "core"}]
    with_gradients = replace(
        plain,
        core={name: nn.Parameter(tensor) for name, tensor in plain.core.items()},
        **{name: nn.Parameter(getattr(plain, name)) for name in names},
    )
    inputs = make_inputs(plain, 2, 6)
    for precision in PRECISIONS:
        ours = results(pack(with_gradients, precision), inputs)
        assert not any(tensor.requires_grad for tensor in ours.values())
        assert_same(ours, results(pack(plain, precision), inputs))


def test_a_lazily_negated_input_is_read_right(pack: Pack) -> None:
    # One number: then the view is contiguous, and nothing else copies it.
    weights = make_weights(PLAIN, n_inputs=1)
    inputs = make_inputs(weights, 1, 1)
    negated = torch.complex(inputs, inputs).conj().imag
    assert negated.is_neg()
    assert negated.is_contiguous()
    stack = pack(weights, "fp32")
    assert_same(results(stack, negated), results(stack, -inputs))


def test_the_native_layer_refuses_to_write_into_a_copy(require: Callable[[str, bool, str], None]) -> None:
    reason = CpuBackend().unavailable()
    require("cpu", reason is None, str(reason))
    from models.mamba2.kernels.cpu import _native  # noqa: PLC0415 - only where it is compiled

    stack = CpuBackend().pack(make_weights(PLAIN))
    session = _native.Session(stack._native, 2, 1)
    inputs, state = np.zeros((2, 4, 5), np.float32), make_state(PLAIN, 2).layers[0]
    with pytest.raises(TypeError):
        session.advance(inputs, np.zeros((2, 4, 3)), 0, 4, False)  # type: ignore[arg-type]  # float64
    for conv, ssm in (
        (state.conv_BCK.double().numpy(), state.ssm_BHPN.numpy()),
        (state.conv_BCK.numpy(), state.ssm_BHPN.double().numpy()),
    ):
        with pytest.raises(TypeError):
            session.save(0, conv, ssm)
