"""The file of a training that is under way: what the training is made of, and where it stood at its last validation."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What a training is made of; one that was killed goes on where all of it is the same.

    Attributes:
        options: how it is trained, and the weights that it began with or learns from.
        data: digest of the steps.
        until_us: where the latest of the steps ends, UTC microseconds.
    """

    options: str
    data: str
    until_us: int

    def to_text(self) -> str:
        """Return it as a file keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return what `to_text` wrote.

        Raises:
            TypeError, ValueError: it did not.
        """
        return cls(**json.loads(text))


def read_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return what the file holds, tensors on `device`; None where it is missing or damaged.

    Nothing is lost then but time: the training begins at the beginning.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError):
        return None
    return state if isinstance(state, dict) else None


def read_made_of(path: Path) -> MadeOf | None:
    """Return what the training was made of that left this file; None where it is missing, damaged or of old."""
    state = read_state(path, torch.device("cpu"))
    try:
        return None if state is None else MadeOf.of_text(state["made_of"])
    except (KeyError, TypeError, ValueError):
        return None
