"""Three ways, one answer: whole sequences, chunks with carried state, and single steps of a whole stack."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mamba2.config import Mamba2Config, Mamba2ConfigError
from models.mamba2.core import Mamba2Core
from models.mamba2.state import LayerState, Mamba2State, Mamba2StateError

SMALL = Mamba2Config(d_model=8, n_layers=2, d_state=4, headdim=4, chunk_size=8)


@st.composite
def configs(draw):
    headdim = draw(st.sampled_from([2, 4]))
    n_groups = draw(st.integers(1, 2))
    d_model = headdim * n_groups * draw(st.integers(1, 2))
    return Mamba2Config(
        d_model=d_model,
        n_layers=draw(st.integers(1, 3)),
        d_state=draw(st.integers(1, 6)),
        headdim=headdim,
        expand=draw(st.integers(1, 2)),
        d_conv=draw(st.integers(2, 5)),
        n_groups=n_groups,
        chunk_size=draw(st.integers(1, 12)),
        dt_limit=draw(st.sampled_from([(0.0, math.inf), (0.002, 0.05)])),
    )


def sequence(config, batch, length, seed=0, dtype=torch.float32):
    return torch.randn(batch, length, config.d_model, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_states_close(ours, theirs, **tolerance):
    for ours_layer, theirs_layer in zip(ours.layers, theirs.layers, strict=True):
        torch.testing.assert_close(ours_layer.conv_BCK, theirs_layer.conv_BCK, **tolerance)
        torch.testing.assert_close(ours_layer.ssm_BHPN, theirs_layer.ssm_BHPN, **tolerance)


def naive_core(core, x_BLD):
    """The whole stack, one step, one head, one channel at a time, in float64 numpy."""
    config = core.config
    weights = {name: tensor.double().numpy() for name, tensor in core.state_dict().items()}
    inner, maps = config.d_inner, config.n_groups * config.d_state

    def silu(v):
        return v / (1 + np.exp(-v))

    def rms(v, weight):
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + config.norm_eps) * weight

    x = x_BLD.double().numpy().copy()
    batch, length, _ = x.shape
    for index in range(config.n_layers):
        w = {name.removeprefix(f"layers.{index}."): value for name, value in weights.items()}
        projected = rms(x, w["norm.weight"]) @ w["mixer.in_proj.weight"].T
        z, xBC, dt = np.split(projected, [inner, inner + config.conv_dim], -1)
        padded = np.concatenate([np.zeros((batch, config.d_conv - 1, config.conv_dim)), xBC], 1)
        taps = w["mixer.conv1d.weight"][:, 0].T
        conv = sum(padded[:, k : k + length] * taps[k] for k in range(config.d_conv)) + w["mixer.conv1d.bias"]
        u, B, C = np.split(silu(conv), [inner, inner + maps], -1)
        dt = np.clip(np.log1p(np.exp(dt + w["mixer.dt_bias"])), *config.dt_limit)
        y = np.zeros_like(u)
        for head in range(config.n_heads):
            group = head * config.n_groups // config.n_heads
            lanes = slice(head * config.headdim, (head + 1) * config.headdim)
            columns = slice(group * config.d_state, (group + 1) * config.d_state)
            state = np.zeros((batch, config.headdim, config.d_state))
            for t in range(length):
                step = dt[:, t, head, None, None]
                state = state * np.exp(-np.exp(w["mixer.A_log"][head]) * step)
                state += step * u[:, t, lanes, None] * B[:, t, None, columns]
                y[:, t, lanes] = (state * C[:, t, None, columns]).sum(-1) + w["mixer.D"][head] * u[:, t, lanes]
        gated = (y * silu(z)).reshape(batch, length, config.n_groups, -1)
        x = x + rms(gated, 1.0).reshape(y.shape) * w["mixer.norm.weight"] @ w["mixer.out_proj.weight"].T
    return rms(x, weights["norm_f.weight"])


@settings(deadline=None, max_examples=25)
@given(config=configs(), batch=st.integers(1, 3), length=st.integers(1, 30), seed=st.integers(0, 1000))
def test_core_equals_an_independent_implementation(config, batch, length, seed):
    core = Mamba2Core(config, seed=seed).double()
    x = sequence(config, batch, length, seed, torch.float64)
    with torch.no_grad():
        y, _ = core(x)
    np.testing.assert_allclose(y.numpy(), naive_core(core, x), rtol=1e-8, atol=1e-8)


@settings(deadline=None, max_examples=40)
@given(config=configs(), length=st.integers(0, 40), cuts=st.lists(st.integers(0, 40), max_size=5), data=st.data())
def test_any_cuts_with_carried_state_give_the_whole(config, length, cuts, data):
    core = Mamba2Core(config, seed=data.draw(st.integers(0, 100)))
    x = sequence(config, 2, length)
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    with torch.no_grad():
        whole, final = core(x)
        parts, state = [], None
        for begin, end in itertools.pairwise(edges):
            part, state = core(x[:, begin:end], state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=2e-4, atol=2e-5)
    assert_states_close(state, final, rtol=2e-4, atol=2e-5)


@settings(deadline=None, max_examples=15)
@given(config=configs(), every=st.integers(1, 9), count=st.integers(1, 4))
def test_states_on_the_way_are_those_of_shorter_sequences(config, every, count):
    core = Mamba2Core(config, seed=2)
    x = sequence(config, 2, every * count)
    states = core.states(x, every)
    assert len(states) == count
    for number, state in enumerate(states, start=1):
        state.check(config, 2)
        assert_states_close(state, core(x[:, : number * every])[1], rtol=2e-4, atol=2e-5)


@settings(deadline=None, max_examples=25)
@given(config=configs(), length=st.integers(1, 20), start=st.integers(0, 6))
def test_single_steps_give_the_whole(config, length, start):
    core = Mamba2Core(config, seed=1)
    x = sequence(config, 2, start + length)
    with torch.no_grad():
        whole, final = core(x)
        _, state = core(x[:, :start])
        for t in range(start, start + length):
            y, state = core.step(x[:, t], state)
            torch.testing.assert_close(y, whole[:, t], rtol=2e-4, atol=2e-5)
    assert_states_close(state, final, rtol=2e-4, atol=2e-5)


@settings(deadline=None, max_examples=8)
@given(config=configs(), length=st.integers(2, 14), data=st.data())
def test_gradients_agree_in_all_three_ways(config, length, data):
    x = sequence(config, 2, length, dtype=torch.float64)
    cut = data.draw(st.integers(0, length))

    def gradients(run):
        core = Mamba2Core(config, seed=2).double()
        leaf = x.clone().requires_grad_()
        y, state = run(core, leaf)
        (y.sin().sum() + sum(layer.ssm_BHPN.sum() + layer.conv_BCK.sum() for layer in state.layers)).backward()
        return [leaf.grad, *(parameter.grad for parameter in core.parameters())]

    def chunked(core, leaf):
        first, state = core(leaf[:, :cut])
        second, state = core(leaf[:, cut:], state)
        return torch.cat([first, second], 1), state

    def stepped(core, leaf):
        state, outputs = None, []
        for t in range(length):
            y, state = core.step(leaf[:, t], state)
            outputs.append(y)
        return torch.stack(outputs, 1), state

    whole = gradients(lambda core, leaf: core(leaf))
    checkpointed = gradients(lambda core, leaf: core(leaf, checkpoint_blocks=True))
    for other in (gradients(chunked), gradients(stepped), checkpointed):
        for ours, theirs in zip(whole, other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_gradients_reach_the_initial_state():
    core = Mamba2Core(SMALL, seed=0)
    state = core.initial_state(2).map(lambda tensor: tensor.requires_grad_())
    y, _ = core(sequence(SMALL, 2, 5), state)
    y.square().sum().backward()
    for layer in state.layers:
        assert layer.conv_BCK.grad.abs().sum() > 0
        assert layer.ssm_BHPN.grad.abs().sum() > 0


def test_checkpointing_saves_memory_of_the_backward_pass():
    def saved_elements(checkpoint_blocks):
        core, sizes = Mamba2Core(SMALL, seed=0), []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            core(sequence(SMALL, 2, 64), checkpoint_blocks=checkpoint_blocks)
        return sum(sizes)

    assert saved_elements(True) < saved_elements(False) / 4


def test_rows_of_a_batch_do_not_see_each_other():
    core = Mamba2Core(SMALL, seed=3)
    x = sequence(SMALL, 4, 19)
    with torch.no_grad():
        y, state = core(x)
        changed = x.clone()
        changed[2] = 100
        y_changed, _ = core(changed)
        alone, state_alone = core(x[1:2])
    for row in (0, 1, 3):
        assert torch.equal(y_changed[row], y[row])
    torch.testing.assert_close(alone, y[1:2], rtol=1e-4, atol=1e-5)
    assert_states_close(state_alone, state.select([1]), rtol=1e-4, atol=1e-5)


def test_later_inputs_change_no_earlier_output():
    core = Mamba2Core(SMALL, seed=3)
    x = sequence(SMALL, 1, 20)
    changed = x.clone()
    changed[:, 13:] += 5
    with torch.no_grad():
        before, after = core(x)[0], core(changed)[0]
    torch.testing.assert_close(before[:, :13], after[:, :13], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before[:, 13:], after[:, 13:])


def test_states_are_values():
    core = Mamba2Core(SMALL, seed=0)
    with torch.no_grad():
        _, state = core(sequence(SMALL, 2, 3))
        kept = state.clone()
        core(sequence(SMALL, 2, 5), state)
        core.step(sequence(SMALL, 2, 1)[:, 0], state)
    assert_states_close(state, kept, rtol=0, atol=0)


def test_state_stays_float32_under_autocast():
    core = Mamba2Core(SMALL, seed=0)
    x = sequence(SMALL, 2, 21)
    with torch.no_grad():
        exact, _ = core(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, state = core(x)
            _, state = core.step(x[:, 0], state)
    assert all(t.dtype == torch.float32 for layer in state.layers for t in (layer.conv_BCK, layer.ssm_BHPN))
    torch.testing.assert_close(y.float(), exact, rtol=0.1, atol=0.1)


def test_the_seed_alone_decides_the_parameters():
    torch.manual_seed(0)
    first = Mamba2Core(SMALL, seed=7).state_dict()
    after_first = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after_first), "the global generator was used"
    second = Mamba2Core(SMALL, seed=7).state_dict()
    other = Mamba2Core(SMALL, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["layers.0.mixer.in_proj.weight"], other["layers.0.mixer.in_proj.weight"])


def test_initial_parameters_lie_where_mamba_ssm_puts_them():
    config = Mamba2Config(d_model=256, n_layers=4, headdim=2, d_state=8)
    mixer = Mamba2Core(config, seed=0).layers[0].mixer
    dt = torch.nn.functional.softplus(mixer.dt_bias)
    assert 0.00099 <= dt.min() < 0.002
    assert 0.05 < dt.max() <= 0.101
    A = mixer.A_log.exp()
    assert 1 <= A.min() < 2
    assert 15 < A.max() <= 16
    assert torch.equal(mixer.D, torch.ones(256))
    assert math.isclose(mixer.out_proj.weight.std().item(), 1 / math.sqrt(3 * 512) / 2, rel_tol=0.05)


def test_parameter_names_and_shapes_are_those_of_mamba_ssm():
    config = Mamba2Config(d_model=8, n_layers=1, d_state=3, headdim=4, n_groups=2)
    shapes = {name: tuple(tensor.shape) for name, tensor in Mamba2Core(config).state_dict().items()}
    assert shapes == {
        "layers.0.norm.weight": (8,),
        "layers.0.mixer.dt_bias": (4,),
        "layers.0.mixer.A_log": (4,),
        "layers.0.mixer.D": (4,),
        "layers.0.mixer.in_proj.weight": (2 * 16 + 2 * 2 * 3 + 4, 8),
        "layers.0.mixer.conv1d.weight": (16 + 2 * 2 * 3, 1, 4),
        "layers.0.mixer.conv1d.bias": (16 + 2 * 2 * 3,),
        "layers.0.mixer.norm.weight": (16,),
        "layers.0.mixer.out_proj.weight": (8, 16),
        "norm_f.weight": (8,),
    }


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"d_model": 0}, "d_model"),
        ({"n_layers": -1}, "n_layers"),
        ({"headdim": 5}, "headdim 5"),
        ({"n_groups": 3}, "n_groups 3"),
        ({"d_conv": 1}, "d_conv"),
        ({"dt_min": 0.2}, "dt_min"),
        ({"dt_limit": (0.5, 0.1)}, "dt_limit"),
        ({"norm_eps": 0.0}, "norm_eps"),
    ],
)
def test_impossible_configurations_are_refused(fields, word):
    with pytest.raises(Mamba2ConfigError, match=word):
        Mamba2Config(**{"d_model": 8, "n_layers": 1, "headdim": 4, **fields})


def test_configuration_survives_json():
    config = Mamba2Config(d_model=8, n_layers=1, headdim=4, dt_limit=(0.001, math.inf))
    assert Mamba2Config.from_dict(config.to_dict()) == config
    with pytest.raises(Mamba2ConfigError, match="d_modle"):
        Mamba2Config.from_dict({"d_modle": 8, "n_layers": 1})


def test_state_of_another_configuration_or_batch_is_refused():
    core = Mamba2Core(SMALL)
    x = sequence(SMALL, 2, 3)
    for fields in ({"d_state": 5}, {"d_model": 16}, {"d_conv": 3}, {"n_layers": 3}):
        other = Mamba2Config(**{"d_model": 8, "n_layers": 2, "d_state": 4, "headdim": 4, **fields})
        with pytest.raises(Mamba2StateError):
            core(x, Mamba2State.zeros(other, 2))
    with pytest.raises(Mamba2StateError, match="shape"):
        core(x, core.initial_state(3))
    half = core.initial_state(2).map(lambda tensor: tensor.half())
    with pytest.raises(Mamba2StateError, match="float16"):
        core.step(x[:, 0], half)


def test_state_survives_tensors_and_refuses_damaged_ones():
    core = Mamba2Core(SMALL)
    with torch.no_grad():
        _, state = core(sequence(SMALL, 2, 5))
    tensors = state.to_tensors()
    assert_states_close(Mamba2State.from_tensors(tensors, SMALL), state, rtol=0, atol=0)
    with pytest.raises(Mamba2StateError, match=r"layers\.1\.ssm"):
        Mamba2State.from_tensors({name: t for name, t in tensors.items() if name != "layers.1.ssm"}, SMALL)
    with pytest.raises(Mamba2StateError, match="shape"):
        Mamba2State.from_tensors({**tensors, "layers.0.conv": tensors["layers.0.conv"][:1]}, SMALL)
    with pytest.raises(Mamba2StateError, match="not finite"):
        Mamba2State.from_tensors({**tensors, "layers.0.ssm": tensors["layers.0.ssm"] * math.nan}, SMALL)


def test_states_can_be_selected_repeated_and_stacked():
    core = Mamba2Core(SMALL)
    with torch.no_grad():
        _, state = core(sequence(SMALL, 3, 5))
    twice = state.repeat(2)
    assert twice.batch == 6
    assert_states_close(twice.select([0, 2, 4]), state, rtol=0, atol=0)
    assert_states_close(Mamba2State.stack([state.select([0]), state.select([1, 2])]), state, rtol=0, atol=0)
    with pytest.raises(Mamba2StateError):
        Mamba2State.stack([])
    other = Mamba2State((LayerState(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2, 2)),))
    with pytest.raises(Mamba2StateError):
        Mamba2State.stack([state, other])
