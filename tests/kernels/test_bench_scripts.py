"""The benchmark scripts where nothing is to be measured, or nothing can be kept."""

import runpy
import sys
from pathlib import Path

import pytest

from forecasting.bench.processes import CACHE_VARIABLE, PeerError, cache_folder, peer_python

ROLLOUT = Path(__file__).parents[2] / "benchmarks" / "rollout.py"


def test_a_choice_of_no_case_is_a_wrong_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROLLOUT), "--only", "zzz"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROLLOUT), run_name="__main__")
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "--only 'zzz' names no case" in shown.err


@pytest.mark.parametrize("backend", ["", "reference"])
@pytest.mark.parametrize("name", ["rollout.py", "prefill.py"])
def test_a_wrong_setting_is_not_measured_as_the_reference(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROLLOUT.with_name(name)
    monkeypatch.setenv("GRAPHTIDE_BACKEND", backend)
    monkeypatch.setenv("GRAPHTIDE_CPU_ISA", "avx51")
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit, match="the backend cpu cannot be measured: GRAPHTIDE_CPU_ISA"):
        runpy.run_path(str(script), run_name="__main__")


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(PeerError, match=CACHE_VARIABLE):
        peer_python("huggingface", print)
    # What needs no environment of its own is measured all the same.
    assert peer_python("graphtide", print) == sys.executable
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
