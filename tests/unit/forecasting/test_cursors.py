"""Cursors of subscribers as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.api.cursors import WINDOW_STEPS, Cursor

REVISIONS = st.lists(st.integers(0, 3) | st.integers(0, 10**8), max_size=WINDOW_STEPS).map(tuple)


@given(st.integers(-(10**17), 10**17), st.integers(0, 10**17), REVISIONS, st.sampled_from(["", "0af3", "f" * 12]))
def test_a_cursor_is_what_its_text_says(start_us: int, older: int, revisions: tuple[int, ...], tag: str) -> None:
    cursor = Cursor(start_us, older, revisions, tag)
    assert Cursor.parse(str(cursor)) == cursor
    assert str(cursor).isascii()
    assert " " not in str(cursor)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.0.0.", "1.0.0.0x5.g", "2.0.0.0.", "1.0.0.0,,1.", "1.0.0.0x.", "1.0.-1.0.", "1.٣.0.0.", "1.0.0.0x513."],
)
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


def test_equal_revisions_take_no_room() -> None:
    assert str(Cursor(0, 0, (0,) * 500 + (2, 2, 1))) == "1.0.0.0x500,2x2,1."
