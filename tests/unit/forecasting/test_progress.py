"""Progress where there is no terminal: a plain line now and then, on stderr."""

import time
from contextlib import ExitStack

import pytest

from forecasting.cli.progress import LINE_INTERVAL_S, Phase, progress


def test_lines_come_at_intervals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with progress("Reading x") as report:
        report(1, 4, "bytes")
        now_s += LINE_INTERVAL_S
        report(1000, 4000, "bytes")
        report(2000, 4000, "bytes")
        now_s += LINE_INTERVAL_S
        report(5000, None, "events, 10/s")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "Reading x: 25 %, 1,000 of 4,000 bytes",
        "Reading x: 5,000 events, 10/s",
    ]
    assert captured.out == ""


def test_a_phase_takes_the_place_of_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[str] = []
    with ExitStack() as shown:
        first, second = Phase(shown, "first"), Phase(shown, "second")
        first(1, 2, "steps")
        shown.callback(ended.append, "first")
        first(2, 2, "steps")
        assert ended == []
        second(1, 2, "steps")
        assert ended == ["first"]
        shown.callback(ended.append, "second")
    assert ended == ["first", "second"]
