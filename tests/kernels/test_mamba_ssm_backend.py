"""How the kernels of mamba_ssm are called, against stand-ins of their signatures; no GPU has run them here."""

import sys

import pytest
import torch

from models.mamba2.kernels import reference
from models.mamba2.kernels.contract import BackendUnavailableError
from models.mamba2.kernels.mamba_ssm_backend import MambaSsmBackend, MambaSsmScan
from models.mamba2.kernels.torch_backend import ReferenceStack
from tests.kernels.stacks import ODD, PLAIN, Case, expected, relative_error, tensors_of


def chunk_scan(x, dt, A, B, C, chunk_size, *, initial_states, return_final_states):
    """What `mamba_chunk_scan_combined` computes, and what it insists on."""
    assert return_final_states
    assert chunk_size & (chunk_size - 1) == 0
    assert chunk_size >= 16
    assert all(tensor.stride(-1) == 1 for tensor in (x, B, C))
    return reference.selective_scan(x, dt, A, B, C, initial_states, chunk_size=chunk_size)


def state_update(state, x, dt, A, B, C):
    """What `selective_state_update` computes: rates by channel, the state changed in place."""
    assert dt.shape == x.shape
    assert A.shape == state.shape[1:]
    per_group = x.shape[1] // B.shape[1]
    B, C = (tensor.repeat_interleave(per_group, 1)[:, :, None] for tensor in (B, C))
    state.copy_(state * torch.exp(dt[..., None] * A) + (dt * x)[..., None] * B)
    return (state * C).sum(-1)


@pytest.mark.parametrize("config", [PLAIN, ODD], ids=["plain", "odd"])
def test_a_stack_on_these_kernels_gives_the_numbers_of_the_reference(config):
    case = Case(config, steps=37)
    stack = ReferenceStack(case.weights(), "fp32", scan=MambaSsmScan(chunk_scan, state_update))
    for method in (stack.prefill, stack.rollout):
        state = case.state()
        ours = tensors_of(*method(case.inputs(), state))
        assert relative_error(ours, expected(case, "fp32")) <= 1e-5
        assert all(
            torch.equal(a, b)
            for a, b in zip(state.to_tensors().values(), case.state().to_tensors().values(), strict=True)
        )


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "GPU" in MambaSsmBackend().unavailable()
    with pytest.raises(BackendUnavailableError, match="mamba_ssm cannot run here: it needs an NVIDIA GPU"):
        MambaSsmBackend().pack(Case(PLAIN).weights())


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    assert "pip install mamba-ssm" in MambaSsmBackend().unavailable()
