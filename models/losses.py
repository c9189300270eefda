"""What training minimises: the quantile loss of the forecasts of a batch.

Shape suffixes: N forecasts, H horizon, M modelled metrics, Q quantile levels.
"""

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from infra.schema import QUANTILE_LEVELS
from models.forecaster import ForecasterNet
from models.mamba2.state import Mamba2State
from models.samples import Batch

# Gradient of a forecast outside its metric's range, against 1 inside.
OUTSIDE_SLOPE = 0.02
# Longer forecasts are judged piece by piece: what the head says of a step is six times what it sees of it, and the loss
# keeps it several times over.
_PIECE_STEPS = 4096


def pinball(residual_quantiles_NHMQ: Tensor, target_NHM: Tensor, weight_NHM: Tensor) -> Tensor:
    """Return the mean quantile (pinball) loss over all levels (Koenker and Bassett, 1978)."""
    levels = torch.tensor(QUANTILE_LEVELS, dtype=target_NHM.dtype, device=target_NHM.device)
    error = target_NHM.unsqueeze(-1) - residual_quantiles_NHMQ
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)
    return (loss * weight_NHM).mean()


def batch_quantiles(net: ForecasterNet, batch: Batch, *, checkpoint_blocks: bool = False) -> Tensor:
    """Return residual quantiles [N, H, M, Q]: encode each stretch once, forecast from the state at every cut."""
    at_cuts = _states_at_cuts(net, batch, checkpoint_blocks=checkpoint_blocks)
    quantiles_NHMQ: Tensor = net(batch.ahead_NHF, Mamba2State.stack(at_cuts), checkpoint_blocks=checkpoint_blocks)[0]
    return quantiles_NHMQ


def _states_at_cuts(net: ForecasterNet, batch: Batch, *, checkpoint_blocks: bool) -> list[Mamba2State]:
    cuts = batch.cuts.tolist()
    every = math.gcd(*cuts)
    if len(cuts) > 1 and not checkpoint_blocks:
        # One pass over the stretch: piece by piece, its many small operations would take half of the time of a batch.
        states = net.states(batch.history_BLF[:, : cuts[-1]], every)
        return [states[cut // every - 1] for cut in cuts]
    state: Mamba2State | None = None
    at_cuts: list[Mamba2State] = []
    for begin, cut in pairwise([0, *cuts]):
        state = net.encode(batch.history_BLF[:, begin:cut], state, checkpoint_blocks=checkpoint_blocks)
        at_cuts.append(state)
    return at_cuts


def batch_loss(net: ForecasterNet, batch: Batch, *, checkpoint_blocks: bool = False) -> Tensor:
    """Return the quantile loss of the forecasts of a batch, brought into the range of each metric as forecasts are.

    Many a quantile of a sparse metric is exactly 0. A forecast below the range costs nearly nothing, so that it can be
    safely there; a little slope brings it back where it has to be.
    """
    at_cuts = _states_at_cuts(net, batch, checkpoint_blocks=checkpoint_blocks)
    hidden_NHD = net.hidden(batch.ahead_NHF, Mamba2State.stack(at_cuts), checkpoint_blocks=checkpoint_blocks)[0]
    horizon = hidden_NHD.shape[1]
    losses = []
    for begin in range(0, horizon, _PIECE_STEPS):
        end = min(begin + _PIECE_STEPS, horizon)
        of_piece = partial(_head_loss, net, batch.part(begin, end))
        if checkpoint_blocks and torch.is_grad_enabled():
            loss = checkpoint(of_piece, hidden_NHD[:, begin:end], use_reentrant=False)
        else:
            loss = of_piece(hidden_NHD[:, begin:end])
        losses.append(loss * ((end - begin) / horizon))
    return torch.stack(losses).sum()


def _head_loss(net: ForecasterNet, batch: Batch, hidden_NHD: Tensor) -> Tensor:
    return quantile_loss(net.said(hidden_NHD, batch.ahead_NHF), batch)


def quantile_loss(quantiles_NHMQ: Tensor, batch: Batch) -> Tensor:
    """Return the loss of residual quantiles of a batch, as `batch_loss` says."""
    inside_NHMQ = torch.clamp(quantiles_NHMQ, batch.low_NHM.unsqueeze(-1), batch.high_NHM.unsqueeze(-1))
    return pinball(torch.lerp(inside_NHMQ, quantiles_NHMQ, OUTSIDE_SLOPE), batch.target_NHM, batch.weight_NHM)


class ForecastLoss(nn.Module):
    """A net and its loss as one module, which is what `DistributedDataParallel` wants to see."""

    def __init__(self, net: ForecasterNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch, checkpoint_blocks: bool) -> Tensor:
        """Return `batch_loss`."""
        return batch_loss(self.net, batch, checkpoint_blocks=checkpoint_blocks)
