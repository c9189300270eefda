"""What all processes of a cluster must share to give the same answers."""

import socket
from importlib.metadata import version

import torch

from forecasting.backtests.kept import code_digest
from infra.errors import UsageError


def made_of() -> dict[str, str]:
    """Return the versions of this process, by name."""
    return {"graphtide": version("graphtide"), "its code": code_digest()[:12], "torch": torch.__version__}


def refuse_others(expected: dict[str, str]) -> None:
    """Check that this process is made of the same.

    Args:
        expected: `made_of` of the process that this one works for.

    Raises:
        UsageError: it would give other answers.
    """
    ours = made_of()
    if ours != expected:
        differ = ", ".join(
            f"{name} {ours[name]}, not {expected[name]}" for name in ours if ours[name] != expected[name]
        )
        raise UsageError(
            f"the worker on {socket.gethostname()} would give other answers: it has {differ}",
            fix="install the same versions on every node of the cluster",
        )
