"""Which backend runs the stacks: forced by GRAPHTIDE_BACKEND, else the fastest that can run here."""

import importlib
import os
from dataclasses import dataclass

from models.mamba2.kernels.contract import Backend, BackendUnavailableError

VARIABLE = "GRAPHTIDE_BACKEND"

# The order of preference. A backend is imported only when it is asked for, so that one that is broken harms no other.
_PLACES = {
    "cuda": ("models.mamba2.kernels.cuda.backend", "CudaBackend"),
    "cpu": ("models.mamba2.kernels.cpu.backend", "CpuBackend"),
    "reference": ("models.mamba2.kernels.torch_backend", "ReferenceBackend"),
    # Never chosen unasked: its results hold to 1e-3 only.
    "mamba_ssm": ("models.mamba2.kernels.mamba_ssm_backend", "MambaSsmBackend"),
}
# No GPU has run our CUDA kernels yet: they compile and hold under emulation, and are used only when they are named.
_CHOSEN_UNASKED = ("cpu", "reference")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of one backend in the choice.

    Attributes:
        name: the backend.
        chosen: whether `get_backend()` returns it.
        reason: why, or why not.
    """

    name: str
    chosen: bool
    reason: str


def get_backend(name: str | None = None) -> Backend:
    """Return the backend `name`, or GRAPHTIDE_BACKEND's, or the fastest that can run here.

    Raises:
        BackendUnavailableError: the named one is unknown or cannot run here; no other takes its place.
    """
    forced = name or os.environ.get(VARIABLE) or None
    if forced is not None:
        source = "" if name else f" ({VARIABLE})"
        if forced not in _PLACES:
            raise BackendUnavailableError(f"unknown backend {forced!r}{source}; known are {', '.join(_PLACES)}")
        backend, reason = _load(forced)
        if backend is None:
            raise BackendUnavailableError(f"backend {forced}{source} cannot run here: {reason}")
        return backend
    return _best()[0]


def explain() -> list[Explanation]:
    """Return what became of each backend, fastest first, for `graphtide doctor`; a broken choice raises nothing."""
    forced = os.environ.get(VARIABLE) or None
    best = _best()[1] if forced is None else forced
    lines = []
    if forced is not None and forced not in _PLACES:
        lines.append(Explanation(forced, False, f"unknown, but named by {VARIABLE}; known are {', '.join(_PLACES)}"))
    for name in _PLACES:
        backend, reason = _load(name)
        if backend is None:
            lines.append(Explanation(name, False, f"unavailable: {reason}"))
        elif name == best:
            why = f"named by {VARIABLE}" if forced else "the fastest that can run here"
            lines.append(Explanation(name, True, why))
        elif name in _CHOSEN_UNASKED:
            why = f"{VARIABLE} names {forced}" if forced else f"{best} is preferred"
            lines.append(Explanation(name, False, f"available, but {why}"))
        else:
            lines.append(Explanation(name, False, f"available, but used only when {VARIABLE} names it"))
    return lines


def _best() -> tuple[Backend, str]:
    for name in _CHOSEN_UNASKED:
        backend, _ = _load(name)
        if backend is not None:
            return backend, name
    raise BackendUnavailableError("no backend can run here, not even the reference")


def _load(name: str) -> tuple[Backend | None, str]:
    """Return the backend if it can run here, else None and the reason."""
    module, attribute = _PLACES[name]
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        return None, f"it is not part of this installation ({error})"
    reason = backend.unavailable()
    return (backend, "") if reason is None else (None, reason)
