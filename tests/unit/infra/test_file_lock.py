"""One at a time holds a lock; nothing is left of it."""

import errno
import fcntl
import threading
from pathlib import Path

import pytest

from infra.file_lock import file_lock


def test_holders_take_turns_and_leave_no_file(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "a.lock", [0], [0]

    def work() -> None:
        for _ in range(50):
            with file_lock(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not path.exists()


def test_a_lock_that_was_removed_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock, removed = tmp_path / "a.lock", fcntl.flock, []

    def remove_first(file: int, how: int) -> None:
        if not removed:
            path.unlink()
            removed.append(file)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with file_lock(path):
        assert path.exists()
    assert removed


def test_a_file_system_without_locks_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with file_lock(tmp_path / "a.lock"):
        pass
    assert not list(tmp_path.iterdir())
