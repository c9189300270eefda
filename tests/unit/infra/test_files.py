"""A file is there whole or not at all."""

import os
from pathlib import Path

import pytest

from infra.errors import GraphtideError, UsageError
from infra.files import new_file


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), new_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    with new_file(path) as file:
        file.write(b"after")
    assert path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


def test_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent" / "x.csv", tmp_path / "file" / "x.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot write"), new_file(path):
            pass


def test_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GraphtideError, match="No space left"), new_file(tmp_path / "x.csv") as file:
        file.write(b"x")
    assert not list(tmp_path.iterdir())


def test_pipe_is_written_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with new_file(pipe) as file:
            file.write(b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
