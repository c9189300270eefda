"""Training learns, repeats itself under one seed, and says when there is too little to learn from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.errors import ModelError
from infra.steps import DAY_US, HOUR_US, MINUTE_US, WEEK_US
from models.forecaster import ForecasterConfig, ForecasterNet
from models.losses import batch_loss, batch_quantiles, pinball, quantile_loss
from models.optimisation import TrainingConfig, TrainingProgress
from models.samples import Plan, SampleSource
from models.sampling import cut_grid
from models.training import check_trainable, train
from tests.unit.models.model_series import weekly_history

SMALL = ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16, reach_steps=64)
QUICK = TrainingConfig(budget_s=600, max_iterations=12, tokens_per_batch=256, validate_every=4)


def test_training_beats_the_untrained_net_and_reports_progress() -> None:
    seen: list[TrainingProgress] = []
    trained = train([weekly_history(200)], SMALL, replace(QUICK, max_iterations=40), on_progress=seen.append)
    assert trained.iterations == len(seen) == 40
    assert trained.validation_loss < 0.998 * trained.untrained_loss
    assert seen[-1].done_share == 1.0
    assert trained.stopped == "the number of iterations"


def test_a_training_whose_time_is_up_says_so() -> None:
    trained = train([weekly_history(200)], SMALL, replace(QUICK, budget_s=1e-6))
    assert (trained.iterations, trained.stopped) == (1, "the time budget")


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    first, again = (train([weekly_history(200)], SMALL, QUICK) for _ in range(2))
    other = train([weekly_history(200)], SMALL, replace(QUICK, seed=1))
    for name, tensor in first.net.state_dict().items():
        assert torch.equal(tensor, again.net.state_dict()[name]), name
    assert first.validation_loss != other.validation_loss


@pytest.mark.parametrize("pieces", [1, 3])
def test_gradient_checkpointing_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    # Long sequences are gone through in pieces, of which only the one before has its inside in memory.
    source = SampleSource(weekly_history(400), reach_steps=96)
    batch = source.batch(Plan(np.array([0, 40]), np.array([10, 20]), 96))
    monkeypatch.setattr("models.mamba2.core._RECOMPUTED_STEPS", 96 // pieces)
    monkeypatch.setattr("models.losses._PIECE_STEPS", 90 // pieces)
    net = ForecasterNet(replace(SMALL, n_layers=2))
    gradients = []
    for checkpoint_blocks in (False, True):
        net.zero_grad()
        batch_loss(net.eval(), batch, checkpoint_blocks=checkpoint_blocks).backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("piece_steps", [1, 5, 12])
def test_a_loss_in_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch, piece_steps: int) -> None:
    source = SampleSource(weekly_history(200), reach_steps=64)
    batch = source.batch(Plan(np.array([0, 40]), np.array([10, 20]), 12))
    net = ForecasterNet(SMALL).eval()
    whole = quantile_loss(batch_quantiles(net, batch), batch)
    monkeypatch.setattr("models.losses._PIECE_STEPS", piece_steps)
    torch.testing.assert_close(batch_loss(net, batch), whole)


def test_stretches_encoded_in_one_pass_give_the_states_of_pieces() -> None:
    source = SampleSource(weekly_history(200), reach_steps=64)
    batch = source.batch(Plan(np.array([0, 40]), np.array([6, 12, 21]), 12))
    net = ForecasterNet(replace(SMALL, n_layers=2)).eval()
    whole = batch_quantiles(net, batch)
    by_cut = [
        batch_quantiles(net, source.batch(Plan(np.array([0, 40]), np.array([cut]), 12))) for cut in batch.cuts.tolist()
    ]
    torch.testing.assert_close(whole, torch.cat(by_cut))


@pytest.mark.parametrize("length", [2, 3, 14, 28, 336, 1344])
def test_cuts_lie_on_a_grid_that_leaves_a_choice(length: int) -> None:
    grid = cut_grid(length)
    places = [cut for cut in range(length // 4 + 1, length + 1) if cut % grid == 0]
    assert 1 <= grid <= 32
    assert len(places) >= min(6, length - length // 4)


def test_samples_do_not_look_ahead_of_their_origin() -> None:
    history, changed = weekly_history(200), weekly_history(200)
    changed.values[60:] += 1000.0
    plan = Plan(np.array([20]), np.array([20, 40]), 5)
    batch, other = (SampleSource(h, reach_steps=64).batch(plan) for h in (history, changed))
    torch.testing.assert_close(batch.history_BLF, other.history_BLF)
    torch.testing.assert_close(batch.ahead_NHF, other.ahead_NHF)
    assert not torch.allclose(batch.target_NHM[1], other.target_NHM[1])


@pytest.mark.parametrize("steps", [28, 29, 35, 50, 70])
def test_the_shortest_histories_can_be_trained_on(steps: int) -> None:
    trained = train([weekly_history(steps)], SMALL, replace(QUICK, max_iterations=2))
    assert trained.iterations == 2


def test_cancelling_keeps_the_best_so_far() -> None:
    trained = train([weekly_history(200)], SMALL, QUICK, cancelled=lambda: True)
    assert (trained.iterations, trained.stopped) == (1, "cancelled")


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    kept = tmp_path / "training.pt"
    whole = train([weekly_history(200)], SMALL, QUICK)
    seen: list[TrainingProgress] = []
    begun = train(
        [weekly_history(200)],
        SMALL,
        QUICK,
        resume_from=kept,
        on_progress=seen.append,
        cancelled=lambda: len(seen) == 6,
    )
    assert (begun.stopped, kept.exists()) == ("cancelled", True)
    resumed = train([weekly_history(200)], SMALL, QUICK, resume_from=kept)
    # Written at the fourth iteration, the validation before the end.
    assert (resumed.iterations, kept.exists()) == (12, False)
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name]), name


def test_a_training_killed_behind_its_last_iteration_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    kept, seen = tmp_path / "training.pt", list[TrainingProgress]()
    whole = train([weekly_history(200)], SMALL, QUICK)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("models.training.fit_calibration", killed)
        train([weekly_history(200)], SMALL, QUICK, resume_from=kept)
    resumed = train([weekly_history(200)], SMALL, QUICK, resume_from=kept, on_progress=seen.append)
    assert (resumed.iterations, resumed.stopped, seen) == (12, "the number of iterations", [])
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name]), name


@pytest.mark.parametrize("content", [b"", b"no file of torch", None])
def test_what_another_training_left_is_not_gone_on_from(content: bytes | None, tmp_path: Path) -> None:
    kept = tmp_path / "training.pt"
    if content is None:
        other = replace(QUICK, seed=5)
        train([weekly_history(200)], SMALL, other, resume_from=kept, cancelled=kept.exists)
        assert kept.exists()
    else:
        kept.write_bytes(content)
    assert train([weekly_history(200)], SMALL, QUICK, resume_from=kept).iterations == 12


def test_training_goes_on_from_given_weights() -> None:
    first = train([weekly_history(200)], SMALL, QUICK)
    again = train([weekly_history(200)], SMALL, replace(QUICK, max_iterations=1), start=first.net)
    assert again.untrained_loss == pytest.approx(first.validation_loss, rel=1e-5)


def test_early_stopping() -> None:
    trained = train([weekly_history(200)], SMALL, replace(QUICK, max_iterations=500, learning_rate=1e-9, patience=2))
    assert trained.stopped == "no gain on the validation part"
    assert trained.iterations < 50


@pytest.mark.parametrize("steps", [0, 1, 27])
def test_too_short_a_history_is_refused(steps: int) -> None:
    with pytest.raises(ModelError, match="too short to train"):
        train([weekly_history(200).part(0, steps)], SMALL, QUICK)


@pytest.mark.parametrize("step_us", [7 * MINUTE_US, HOUR_US, DAY_US, WEEK_US, 4 * WEEK_US])
def test_a_smaller_step_is_advised_only_where_it_trains_sooner(step_us: int) -> None:
    with pytest.raises(ModelError, match="too short to train") as caught:
        check_trainable(replace(weekly_history(3), step_us=step_us))
    # A season is a week however short the steps below a week are, and a year of those from a week on.
    assert (", or " in caught.value.fix) == (step_us >= WEEK_US)


def test_the_place_of_a_history_too_short_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        check_trainable(weekly_history(200).part(0, 27), place="graph young")
    assert caught.value.place == "graph young"


def test_a_season_longer_than_its_evidence_is_refused() -> None:
    history = replace(weekly_history(200), step_us=HOUR_US)
    with pytest.raises(ModelError, match="672 steps"):
        train([history], SMALL, QUICK)


def test_pinball_is_the_quantile_loss() -> None:
    target = torch.tensor([[[1.0]]])
    loss = pinball(torch.zeros(1, 1, 1, 11), target, torch.ones(1, 1, 1))
    # An error of 1 above the forecast costs the level itself; the levels are symmetric around one half.
    assert float(loss) == pytest.approx(0.5)
