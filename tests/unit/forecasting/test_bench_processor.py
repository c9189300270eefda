"""What result files say of the processor, read from what Linux says of it."""

import platform
from pathlib import Path

import pytest

from forecasting.bench.processor import Processor, processor

AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
flags\t\t: fpu avx2
bugs\t\t: spectre_v1

processor\t: 1
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
flags\t\t: fpu avx2
"""
ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd sve
CPU implementer\t: 0x41
"""


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine of which Python knows nothing but this."""
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    return "aarch64"


def test_name_generation_and_features_are_told(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(AMD)
    found = Processor("AMD EPYC", "cpu family 26, model 2", frozenset({"fpu", "avx2"}))
    assert processor(tmp_path / "cpuinfo") == found


def test_a_processor_without_a_name_has_that_of_its_architecture(tmp_path: Path, architecture: str) -> None:
    (tmp_path / "cpuinfo").write_text(ARM)
    assert processor(tmp_path / "cpuinfo") == Processor(architecture, "", frozenset({"fp", "asimd", "sve"}))


def test_without_the_file_the_architecture_is_known(tmp_path: Path, architecture: str) -> None:
    assert processor(tmp_path / "cpuinfo") == Processor(architecture, "", frozenset())
