"""What the tests of logs that grow share."""

from pathlib import Path

import pytest

from tests.unit.stream.growth_cases import Runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "logs"
    path.mkdir()
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)
