"""One at a time holds a lock; nothing is left of it."""

import errno
import fcntl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import GraphtideError
from infra.file_lock import file_lock, file_lock_if_free


def test_holders_take_turns_and_leave_no_file(tmp_path: Path) -> None:
    path, inside, seen = tmp_path / "a.lock", set[int](), list[set[int]]()

    def work(worker: int) -> None:
        for _ in range(10):
            with file_lock(path):
                inside.add(worker)
                # Lets another thread run, which without turns comes in.
                time.sleep(0.0005)
                seen.append(set(inside))
                inside.remove(worker)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(seen, key=min) == [{worker} for worker in range(4) for _ in range(10)]
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


def test_who_does_not_wait_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.lock"
    with file_lock_if_free(path) as first, file_lock_if_free(path) as second:
        assert (first, second) == (True, False)
        assert path.exists()
    assert not path.exists()
    with file_lock_if_free(path) as again:
        assert again


def test_a_lock_that_cannot_be_made_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GraphtideError, match="cannot write"), file_lock_if_free(tmp_path / "file" / "a.lock"):
        pass
