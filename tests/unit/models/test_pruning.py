"""A pruned net is the masked one in smaller arrays; a student is half of its teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infra.errors import ModelError
from models.distillation import DistillationLoss, student_of
from models.forecaster import ForecasterConfig, ForecasterNet
from models.losses import batch_loss, batch_quantiles
from models.mamba2.layer import RMSNorm
from models.optimisation import TrainingConfig
from models.pruning import Importance, importance, n_parameters, prune, pruned, smaller_shapes
from models.samples import Batch, Plan, SampleSource
from models.training import train
from tests.unit.models.model_series import weekly_history

SMALL = ForecasterConfig(d_model=32, n_layers=2, d_state=8, headdim=16, reach_steps=64, dropout=0.0)
QUICK = TrainingConfig(budget_s=600, max_iterations=8, tokens_per_batch=256, validate_every=4)


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    source = SampleSource(weekly_history(200), reach_steps=64)
    return [source.batch(Plan(np.array([begin]), np.array([20, 30]), 12)) for begin in (0, 50, 100)]


@pytest.fixture(scope="module")
def net() -> ForecasterNet:
    """A net that has learned a little."""
    return train([weekly_history(200)], SMALL, replace(QUICK, max_iterations=12)).net


def masked(net: ForecasterNet, kept: Importance) -> ForecasterNet:
    """The net with every part that is worth nothing set to zero where it is written."""
    state, config = {name: tensor.clone() for name, tensor in net.state_dict().items()}, net.config.core()
    gone_D = kept.width_D == 0
    state["embed.weight"][gone_D] = 0
    state["embed.bias"][gone_D] = 0
    for layer in range(config.n_layers):
        mixer = f"core.layers.{layer}.mixer"
        state[f"{mixer}.out_proj.weight"][gone_D] = 0
        # silu(0) = 0: the gate is shut.
        gone_I = kept.inner_GHP[layer].flatten() == 0
        state[f"{mixer}.in_proj.weight"][: config.d_inner][gone_I] = 0
        gone_N = torch.nonzero(kept.states_GN[layer] == 0).flatten() + config.d_inner + config.d_state
        state[f"{mixer}.conv1d.weight"][gone_N] = 0
        state[f"{mixer}.conv1d.bias"][gone_N] = 0
    other = ForecasterNet(net.config)
    other.load_state_dict(state)
    return other.eval()


def test_a_pruned_net_computes_what_the_masked_one_does(net: ForecasterNet, batches: list[Batch]) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator) + 0.1

    worth = Importance(drawn(32), drawn(2, 4, 16), drawn(2, 8))
    shape = replace(SMALL, d_model=24, expand=1, headdim=8, d_state=5)
    small = pruned(net, worth, shape)
    for layer in range(2):
        heads = worth.inner_GHP[layer].sum(-1).argsort(descending=True)
        worth.inner_GHP[layer, heads[3:]] = 0
        for head in heads[:3]:
            worth.inner_GHP[layer, head, worth.inner_GHP[layer, head].argsort(descending=True)[8:]] = 0
        worth.states_GN[layer, worth.states_GN[layer].argsort(descending=True)[5:]] = 0
    worth.width_D[worth.width_D.argsort(descending=True)[24:]] = 0
    nets = small, masked(net, worth)
    for norm in (module for one in nets for module in one.modules() if isinstance(module, RMSNorm)):
        # Over another number of channels it weighs differently.
        norm.eps = 1e-12
    with torch.inference_mode():
        ours, theirs = (batch_quantiles(one, batches[0]) for one in nets)
        whole = batch_quantiles(net, batches[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, whole, atol=1e-2)


def test_what_is_worth_nothing_is_pruned_without_loss(net: ForecasterNet, batches: list[Batch]) -> None:
    # A net of half the width, hidden among channels that nothing is written to.
    hidden = importance(net, batches)
    hidden.width_D[1::2] = 0
    hidden.inner_GHP[:, :, 1::2] = 0
    wasteful = masked(net, hidden)
    found = importance(wasteful, batches)
    assert float(found.width_D[1::2].max()) == float(found.inner_GHP[:, :, 1::2].max()) == 0
    small = pruned(wasteful, found, replace(SMALL, d_model=16, headdim=8))
    with torch.inference_mode():
        losses = [float(batch_loss(one, batches[1])) for one in (wasteful, small)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6])
def test_so_many_parameters_go(net: ForecasterNet, batches: list[Batch], share: float) -> None:
    before = sum(parameter.numel() for parameter in net.parameters())
    weighed: list[tuple[int, int]] = []
    small = prune(net, share, batches, lambda done, total: weighed.append((done, total)))
    shapes = len(smaller_shapes(net.config, share))
    assert weighed == [(done, shapes) for done in range(1, shapes + 1)]
    left = sum(parameter.numel() for parameter in small.parameters())
    assert left == n_parameters(small.config) <= (1 - share) * before
    assert before == n_parameters(net.config)
    # It is an architecture like any other: it trains on, and does so from where it is.
    trained = train([weekly_history(200)], small.config, QUICK, start=small)
    assert trained.validation_loss <= trained.untrained_loss


def test_a_net_that_cannot_be_pruned_further_says_so() -> None:
    with pytest.raises(ModelError, match="cannot be pruned by 99%"):
        smaller_shapes(ForecasterConfig(d_model=8, n_layers=1, d_state=4, headdim=8), 0.99)


def test_no_shape_lies_within_another() -> None:
    for shape in smaller_shapes(ForecasterConfig(), 0.5):
        assert n_parameters(replace(shape, d_state=shape.d_state + 2)) > 0.5 * n_parameters(ForecasterConfig()) or (
            shape.d_state == ForecasterConfig().d_state
        )


def test_a_student_has_half_the_layers_and_one_of_its_teachers(net: ForecasterNet, batches: list[Batch]) -> None:
    student = student_of(net, batches)
    assert student.config == replace(SMALL, n_layers=1)
    ours = student.state_dict()["core.layers.0.mixer.in_proj.weight"]
    theirs = [net.state_dict()[f"core.layers.{layer}.mixer.in_proj.weight"] for layer in (0, 1)]
    assert any(torch.equal(ours, one) for one in theirs)


def test_a_teacher_of_one_layer_has_a_student_of_half_the_width(batches: list[Batch]) -> None:
    teacher = ForecasterNet(replace(SMALL, n_layers=1), seed=2)
    assert student_of(teacher, batches).config == replace(SMALL, n_layers=1, d_model=16)
    with pytest.raises(ModelError, match="cannot be halved"):
        student_of(ForecasterNet(replace(SMALL, n_layers=1, headdim=64)), batches)


def test_a_student_comes_nearer_to_its_teacher_and_leaves_it_alone(net: ForecasterNet, batches: list[Batch]) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    student = student_of(net, batches)

    def apart(one: ForecasterNet) -> float:
        with torch.inference_mode():
            pairs = [(batch_quantiles(one, batch), batch_quantiles(net, batch)) for batch in batches]
        return float(sum((a - b).abs().mean() for a, b in pairs))

    far, loss = apart(student), DistillationLoss(student, [net])
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for batch in batches * 5:
        optimizer.zero_grad()
        loss(batch, False).backward()
        optimizer.step()
    assert apart(student) < 0.9 * far
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_student_that_is_its_teacher_has_half_of_the_loss_of_the_data(
    net: ForecasterNet, batches: list[Batch]
) -> None:
    found = DistillationLoss(net, [net])(batches[0], False)
    assert float(found.detach()) == pytest.approx(float(batch_loss(net, batches[0]).detach()) / 2, rel=1e-6)


def test_several_teachers_say_their_mean(net: ForecasterNet, batches: list[Batch]) -> None:
    batch, other = batches[0], ForecasterNet(SMALL, seed=7).eval()
    with torch.inference_mode():
        apart_NHM = (batch_quantiles(net, batch) - batch_quantiles(other, batch)).abs().mean(dim=-1) / 2
    expected = (float(batch_loss(net, batch).detach()) + float((apart_NHM * batch.weight_NHM).mean())) / 2
    found = DistillationLoss(net, [net, other])(batch, False)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_a_training_learns_from_a_teacher(net: ForecasterNet) -> None:
    alone, taught = (train([weekly_history(200)], SMALL, QUICK, teachers=teachers) for teachers in ([], [net]))
    assert alone.untrained_loss == taught.untrained_loss
    assert taught.validation_loss != alone.validation_loss
