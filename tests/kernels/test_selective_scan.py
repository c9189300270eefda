"""The scan against a recurrence written independently in numpy, in values, states and gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from models.mamba2.kernels.reference import selective_scan, selective_scan_states, selective_state_step


def scan_inputs(seed, *, batch=2, length=7, heads=4, width=3, groups=2, size=5, dtype=torch.float64, dt_scale=1.0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return {
        "x_BLHP": normal(batch, length, heads, width),
        "dt_BLH": torch.rand(batch, length, heads, generator=generator, dtype=dtype) * dt_scale,
        "A_H": -torch.rand(heads, generator=generator, dtype=dtype) - 0.1,
        "B_BLGN": normal(batch, length, groups, size),
        "C_BLGN": normal(batch, length, groups, size),
        "state_BHPN": normal(batch, heads, width, size),
    }


def naive_scan(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN):
    x, dt, A, B, C, state = (
        tensor.double().numpy().copy() for tensor in (x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, state_BHPN)
    )
    batch, length, heads, _ = x.shape
    per_group = heads // B.shape[2]
    y = np.zeros_like(x)
    for row in range(batch):
        for head in range(heads):
            group = head // per_group
            for t in range(length):
                decay = np.exp(dt[row, t, head] * A[head])
                added = dt[row, t, head] * np.outer(x[row, t, head], B[row, t, group])
                state[row, head] = decay * state[row, head] + added
                y[row, t, head] = state[row, head] @ C[row, t, group]
    return y, state


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    length=st.integers(1, 40),
    per_group=st.integers(1, 3),
    groups=st.integers(1, 2),
    width=st.integers(1, 4),
    size=st.integers(1, 5),
    chunk_size=st.integers(1, 17),
)
def test_scan_equals_the_recurrence(seed, batch, length, per_group, groups, width, size, chunk_size):
    inputs = scan_inputs(
        seed, batch=batch, length=length, heads=per_group * groups, width=width, groups=groups, size=size
    )
    y, state = selective_scan(**inputs, chunk_size=chunk_size)
    expected_y, expected_state = naive_scan(**inputs)
    np.testing.assert_allclose(y.numpy(), expected_y, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(state.numpy(), expected_state, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 30), chunk_size=st.integers(1, 16))
def test_steps_equal_the_scan_in_values_and_gradients(seed, length, chunk_size):
    def run(function):
        inputs = {name: tensor.requires_grad_() for name, tensor in scan_inputs(seed, length=length).items()}
        y, state = function(inputs)
        (y.sin().sum() + state.cos().sum()).backward()
        return [y, state, *(tensor.grad for tensor in inputs.values())]

    def by_steps(inputs):
        state, outputs = inputs["state_BHPN"], []
        for t in range(length):
            y, state = selective_state_step(
                inputs["x_BLHP"][:, t],
                inputs["dt_BLH"][:, t],
                inputs["A_H"],
                inputs["B_BLGN"][:, t],
                inputs["C_BLGN"][:, t],
                state,
            )
            outputs.append(y)
        return torch.stack(outputs, 1), state

    whole = run(lambda inputs: selective_scan(**inputs, chunk_size=chunk_size))
    for ours, theirs in zip(whole, run(by_steps), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), every=st.integers(1, 13), count=st.integers(1, 4), chunk_size=st.integers(1, 16))
def test_states_on_the_way_equal_those_of_shorter_scans(seed, every, count, chunk_size):
    inputs = scan_inputs(seed, length=every * count)
    y, states = selective_scan_states(**inputs, every=every, chunk_size=chunk_size)
    assert states.shape == (count, *inputs["state_BHPN"].shape)
    for number, state in enumerate(states, start=1):
        until = {
            name: tensor[:, : number * every] if "L" in name.split("_")[1] else tensor
            for name, tensor in inputs.items()
        }
        expected_y, expected_state = naive_scan(**until)
        np.testing.assert_allclose(y[:, : number * every].numpy(), expected_y, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(state.numpy(), expected_state, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [0, 7])
def test_states_on_the_way_need_whole_parts(length):
    with pytest.raises(ValueError, match=f"3 steps do not divide a sequence of {length}"):
        selective_scan_states(**scan_inputs(0, length=length), every=3)


@pytest.mark.parametrize(("length", "chunk_size"), [(1, 4), (5, 4), (8, 4)])
def test_gradients_of_inputs_and_initial_state(length, chunk_size):
    inputs = scan_inputs(3, batch=1, length=length, heads=2, width=2, groups=1, size=2)

    def function(*tensors):
        return selective_scan(*tensors, chunk_size=chunk_size)

    assert gradcheck(function, [tensor.requires_grad_() for tensor in inputs.values()])


def test_gradients_of_the_step():
    inputs = scan_inputs(4, batch=2, length=1, heads=2, width=2, groups=2, size=2)
    tensors = [inputs[name][:, 0] for name in ("x_BLHP", "dt_BLH")]
    tensors += [inputs["A_H"], inputs["B_BLGN"][:, 0], inputs["C_BLGN"][:, 0], inputs["state_BHPN"]]
    assert gradcheck(selective_state_step, [tensor.clone().requires_grad_() for tensor in tensors])


def test_empty_sequence_keeps_the_state():
    inputs = scan_inputs(0, length=0)
    y, state = selective_scan(**inputs)
    assert y.shape == inputs["x_BLHP"].shape
    assert torch.equal(state, inputs["state_BHPN"])


def test_inputs_are_not_changed():
    inputs = scan_inputs(1, length=9)
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    selective_scan(**inputs, chunk_size=4)
    for name, tensor in inputs.items():
        assert torch.equal(tensor, before[name]), name


def test_huge_step_sizes_cost_small_ones_no_digits():
    inputs = scan_inputs(5, batch=1, length=48, heads=2, width=2, groups=1, size=3, dt_scale=0.01)
    inputs["dt_BLH"][:, ::12] = 3e4
    expected_y, expected_state = naive_scan(**inputs)
    y, state = selective_scan(**{name: tensor.float() for name, tensor in inputs.items()}, chunk_size=16)
    scale = np.abs(expected_y).max()
    np.testing.assert_allclose(y.numpy() / scale, expected_y / scale, atol=2e-6)
    np.testing.assert_allclose(state.numpy() / scale, expected_state / scale, atol=2e-6)


@pytest.mark.parametrize("rate", [1.0, 3e38])
def test_strong_decay_gives_no_infinity_or_nan(rate):
    inputs = {name: tensor.float() for name, tensor in scan_inputs(6, length=33, dt_scale=1e6).items()}
    inputs["A_H"] *= rate
    expected_y, expected_state = naive_scan(**inputs)
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    y, state = selective_scan(**leaves, chunk_size=8)
    np.testing.assert_allclose(y.detach(), expected_y, rtol=1e-4, atol=1e-4 * np.abs(expected_y).max())
    np.testing.assert_allclose(state.detach(), expected_state, rtol=1e-4, atol=1e-4 * np.abs(expected_state).max())
    (y.sum() + state.sum()).backward()
    for tensor in (y, state, *(leaf.grad for leaf in leaves.values())):
        assert torch.isfinite(tensor).all()
