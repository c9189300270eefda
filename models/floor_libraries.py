"""The libraries of the extra `floors`, imported only where a floor of theirs is asked for."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from infra.errors import ModelError

LIBRARIES = ("statsforecast", "lightgbm")


def require(library: str, floor: str) -> None:
    """Check that a library is installed.

    Raises:
        ModelError: it is not.
    """
    if find_spec(library) is None:
        raise ModelError(
            f"the floor {floor} needs {library}, which is not installed",
            fix='install the extra: pip install "graphtide[floors]"',
        )


def load(module: str, floor: str) -> Any:
    """Return a module of one of the libraries.

    Raises:
        ModelError: its library is not installed.
    """
    require(module.partition(".")[0], floor)
    return importlib.import_module(module)


def versions() -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
