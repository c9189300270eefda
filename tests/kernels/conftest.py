"""Fixtures of the kernel tests."""

import os
import shutil
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def compiler(require: Callable[[str, bool, str], None]) -> str:
    """Return a C++ compiler."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    found = next((path for name in names if name and (path := shutil.which(name))), "")
    require("compiler", bool(found), "there is no C++ compiler")
    return found
