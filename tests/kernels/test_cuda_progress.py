"""What a running rollout on a GPU tells, and when it asks whether to go on."""

from collections.abc import Callable

import pytest
import torch

from models.mamba2.kernels.contract import RolloutCancelled
from models.mamba2.kernels.cuda.stack import _watch


class Running:
    """A rollout of 2,048 steps whose clusters stand, at each look, where it is said."""

    def __init__(self, looks: list[list[int]]) -> None:
        self.looks = iter(looks)
        self.progress = torch.zeros(2, dtype=torch.int32)
        self.cancel = torch.zeros(1, dtype=torch.int32)

    def mark(self) -> Callable[[], bool]:
        def finished() -> bool:
            self.progress[:] = torch.tensor(next(self.looks))
            return False

        return finished

    def wait(self) -> None:
        pass

    def watch(self, *, on_chunk: Callable[[int], None] | None, cancelled: Callable[[], bool]) -> None:
        _watch(self, self.cancel, self.progress, 2048, 1024, on_chunk, cancelled)


def test_a_chunk_is_told_when_the_slowest_series_has_done_it() -> None:
    running, told, asked = Running([[2048, 0], [2048, 1024], [2048, 2048]]), [], []

    def ask() -> bool:
        asked.append(running.progress.tolist())
        return False

    running.watch(on_chunk=lambda done: told.append((done, running.progress.tolist())), cancelled=ask)
    assert told == [(1024, [2048, 1024]), (2048, [2048, 2048])]
    # Not only once the last of them has begun.
    assert asked[0] == [2048, 0]


def test_a_wish_to_cancel_does_not_wait_for_series_that_have_not_begun() -> None:
    running = Running([[1024, 0], [2048, 0], [2048, 2048]])
    with pytest.raises(RolloutCancelled):
        running.watch(on_chunk=None, cancelled=lambda: True)
    assert running.progress.tolist() == [2048, 0]
    assert running.cancel.item() == 1
