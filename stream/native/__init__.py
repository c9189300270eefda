"""Loops of ingestion in C++, where the package was built with a compiler.

Without it, all that they do is done by slower means: `native` is None, and its users say where that leads.
"""

from types import ModuleType

__all__ = ["native", "unavailable"]

native: ModuleType | None
try:
    from stream.native import _native as native
except ImportError as error:
    native = None
    _reason = str(error)


def unavailable() -> str | None:
    """Return why the compiled part cannot be used, None if it can."""
    return None if native is not None else _reason
