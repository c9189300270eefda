"""Processes that train together, as `torchrun` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from infra.errors import UsageError

T = TypeVar("T")
# One process validates or writes while the others wait.
_TIMEOUT = timedelta(minutes=30)


@contextmanager
def training_together() -> Iterator[None]:
    """Join the processes that `torchrun` started: NCCL where there are GPUs, gloo elsewhere.

    Raises:
        UsageError: this process was not started by `torchrun`.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise UsageError(
            "--distributed is for processes that torchrun starts",
            fix="torchrun --no-python --nproc-per-node 2 graphtide train --distributed",
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def n_workers() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def worker_number() -> int:
    """Return the number of this process among them; the first, 0, writes and speaks for all."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def of_the_first(found: T) -> T:
    """Return what the first of them found, in all of them: they agree on what changes while each of them looks."""
    if n_workers() == 1:
        return found
    told = [found]
    distributed.broadcast_object_list(told, src=0)
    return told[0]
