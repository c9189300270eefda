"""A file is written whole or not at all."""

from pathlib import Path

import pytest

from infra.errors import GraphtideError
from infra.whole_file import refuse_unwritable, whole_file


def test_success_puts_the_file_in_place_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second"):
        with whole_file(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="on the way"), whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("on the way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GraphtideError, match="cannot write") as caught, whole_file(tmp_path / "file" / "below"):
        pytest.fail("the body must not run")
    assert caught.value.fix is not None


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(GraphtideError, match="cannot write"), whole_file(tmp_path / "taken") as temporary:
        temporary.write_text("text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("place", ["file/below", "file/deep/below", "folder", "gone/below"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere" / "at-all")
    with pytest.raises(GraphtideError, match="cannot write") as caught:
        refuse_unwritable(tmp_path / place)
    assert caught.value.fix is not None


@pytest.mark.parametrize("place", ["file", "new/deep/file"])
def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("old")
    refuse_unwritable(tmp_path / place)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
