"""Distillation: a net, such as a student of half the layers, learns from data and from what its teachers say of them.

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network" (arXiv:1503.02531): a loss on the data
and a loss on the teacher's whole distribution. Here that is the mean distance between two quantile functions, which is
the Wasserstein distance of order 1 between the distributions (Vallender 1974). Several teachers say the mean of their
quantile functions, level by level, which is as sharp as they are (Vincent 1912; Ratcliff 1979, "Group reaction time
distributions and an analysis of distribution statistics"). A smaller student begins with every second
layer of its teacher, embedding and head included, as in Sanh et al. 2019, "DistilBERT" (arXiv:1910.01108).

Shape suffixes: N forecasts, H horizon, M modelled metrics, Q quantile levels.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from infra.errors import ModelError
from models.forecaster import ForecasterNet
from models.losses import batch_quantiles, quantile_loss
from models.pruning import OnWeighed, importance, least_loss, pruned
from models.samples import Batch

# Of the loss, so much is the distance from the teacher.
TEACHER_SHARE = 0.5


def student_of(teacher: ForecasterNet, batches: Sequence[Batch], on_weighed: OnWeighed | None = None) -> ForecasterNet:
    """Return a net of half the layers to begin with; of a teacher of one layer, one of half the width.

    Args:
        teacher: a trained net, which stays as it is.
        batches: of what it was trained on: the first or the second of each pair of layers stays, whichever set of them
            loses less there; the channels that matter most stay where the width is halved.
        on_weighed: told of the sets that were tried.

    Raises:
        ModelError: the teacher has one layer, and no head that could go.
    """
    config = teacher.config
    if config.n_layers == 1:
        core = config.core()
        if core.n_heads % 2 or config.d_model % 2:
            raise ModelError(
                f"a model of one layer, {core.n_heads} heads and width {config.d_model} cannot be halved",
                fix="train one of more layers or an even number of heads: [forecaster] n_layers, headdim",
            )
        return pruned(teacher, importance(teacher, batches), replace(config, d_model=config.d_model // 2))
    students = [_every_second(teacher, first) for first in (0, 1)]
    return least_loss(students, batches, on_weighed)


def _every_second(teacher: ForecasterNet, first: int) -> ForecasterNet:
    layers = range(first, teacher.config.n_layers, 2)[: teacher.config.n_layers // 2]
    student = ForecasterNet(replace(teacher.config, n_layers=len(layers)))
    names = {f"core.layers.{old}.": f"core.layers.{new}." for new, old in enumerate(layers)}
    kept = {}
    for name, tensor in teacher.state_dict().items():
        if not name.startswith("core.layers."):
            kept[name] = tensor
        for old, new in names.items():
            if name.startswith(old):
                kept[new + name.removeprefix(old)] = tensor
    student.load_state_dict(kept)
    return student.eval()


class DistillationLoss(nn.Module):
    """A student and its loss as one module; the teachers are no part of it and are never changed.

    Args:
        net: the student.
        teachers: one or more, on the device of the student.
    """

    def __init__(self, net: ForecasterNet, teachers: Sequence[ForecasterNet]) -> None:
        super().__init__()
        self.net = net
        # In a tuple torch does not see them: their weights are not the student's to train or to share.
        self._teachers = tuple(teacher.eval().requires_grad_(False) for teacher in teachers)

    def forward(self, batch: Batch, checkpoint_blocks: bool) -> Tensor:
        """Return the loss of the student's forecasts of a batch, of the data and of the teachers' forecasts."""
        student_NHMQ = batch_quantiles(self.net, batch, checkpoint_blocks=checkpoint_blocks)
        with torch.no_grad():
            taught = [batch_quantiles(teacher, batch) for teacher in self._teachers]
        apart_NHM = (student_NHMQ - torch.stack(taught).mean(dim=0)).abs().mean(dim=-1)
        from_teacher = (apart_NHM * batch.weight_NHM).mean()
        return torch.lerp(quantile_loss(student_NHMQ, batch), from_teacher, TEACHER_SHARE)
