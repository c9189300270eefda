"""Which backend runs the stacks: forced by GRAPHTIDE_BACKEND, else the fastest that can run here."""

import functools
import importlib
import logging
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
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of one backend in the choice.

    Attributes:
        name: the backend.
        chosen: whether `get_backend()` returns it.
        reason: why, or why not.
        is_set_wrongly: whether a variable of it is set to what it cannot use.
        is_refused: whether `get_backend()` fails for that: it is the one that would be chosen.
    """

    name: str
    chosen: bool
    reason: str
    is_set_wrongly: bool = False
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A backend if it can run here, else why not, and whether that is for a setting of it."""

    backend: Backend | None
    reason: str = ""
    is_set_wrongly: bool = False


def get_backend(name: str | None = None) -> Backend:
    """Return the backend `name`, or GRAPHTIDE_BACKEND's, or the fastest that can run here.

    A backend that is not compiled is passed over, with one warning in the log.

    Raises:
        BackendUnavailableError: the named one is unknown or cannot run here, and no other takes its place; or none is
            named, and a variable of the fastest is set to what it cannot use.
    """
    forced = name or os.environ.get(VARIABLE) or None
    if forced is not None:
        source = "" if name else f" ({VARIABLE})"
        if forced not in _PLACES:
            raise BackendUnavailableError(f"unknown backend {forced!r}{source}; known are {', '.join(_PLACES)}")
        loaded = _load(forced)
        if loaded.backend is None:
            raise BackendUnavailableError(f"backend {forced}{source} cannot run here: {loaded.reason}")
        return loaded.backend
    best, loaded = _best()
    if loaded.backend is None:
        raise BackendUnavailableError(f"backend {best} cannot run here: {loaded.reason}")
    for passed_over in _CHOSEN_UNASKED[: _CHOSEN_UNASKED.index(best)]:
        _warn_once(f"the backend {best} runs, for want of {passed_over}: {_load(passed_over).reason}")
    return loaded.backend


def explain() -> list[Explanation]:
    """Return what became of each backend, fastest first, for `graphtide doctor`; a broken choice raises nothing."""
    forced = os.environ.get(VARIABLE) or None
    best = forced or _best()[0]
    lines = []
    if forced is not None and forced not in _PLACES:
        lines.append(Explanation(forced, False, f"unknown, but named by {VARIABLE}; known are {', '.join(_PLACES)}"))
    for name in _PLACES:
        loaded = _load(name)
        if loaded.backend is None:
            wrong = loaded.is_set_wrongly
            lines.append(Explanation(name, False, f"unavailable: {loaded.reason}", wrong, wrong and name == best))
        elif name == best:
            why = f"named by {VARIABLE}" if forced else "the fastest that can run here"
            lines.append(Explanation(name, True, why))
        elif name in _CHOSEN_UNASKED:
            why = f"{VARIABLE} names {forced}" if forced else f"{best} is preferred"
            lines.append(Explanation(name, False, f"available, but {why}"))
        else:
            lines.append(Explanation(name, False, f"available, but used only when {VARIABLE} names it"))
    return lines


def _best() -> tuple[str, _Loaded]:
    """Return the fastest backend that can run here, or that is kept from it by a setting alone, and its name.

    What is set wrongly is not passed over: who set it would get far slower rollouts, and never learn why.
    """
    for name in _CHOSEN_UNASKED:
        loaded = _load(name)
        if loaded.backend is not None or loaded.is_set_wrongly:
            return name, loaded
    # The last is the reference, which has nothing that could be missing.
    return name, loaded


def _load(name: str) -> _Loaded:
    module, attribute = _PLACES[name]
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
        reason = backend.unavailable()
    except ImportError as error:
        return _Loaded(None, f"it is not part of this installation ({error})")
    # Of a library that does not load, or a device that answers with an error.
    except (OSError, RuntimeError) as error:
        return _Loaded(None, f"it cannot be used ({error})")
    if reason is None:
        return _Loaded(backend)
    return _Loaded(None, reason, backend.wrong_setting() is not None)


@functools.cache
def _warn_once(text: str) -> None:
    _LOG.warning(text)
