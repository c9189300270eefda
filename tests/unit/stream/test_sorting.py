"""Sorting on disk gives what sorting in memory gives."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InputError
from stream.events import Event, EventBatch, Interner
from stream.sources.sorting import TimeSorter

_events = st.lists(
    st.builds(
        Event,
        src=st.sampled_from("abc"),
        dst=st.sampled_from("abc"),
        # Few distinct times, so that ties run across the runs; and the extremes.
        ts_us=st.one_of(st.integers(0, 4), st.sampled_from([0, 7_258_118_400_000_000])),
        weight=st.floats(allow_nan=False),
        id=st.one_of(st.none(), st.text(max_size=3)),
    ),
    max_size=24,
)


@given(_events, st.integers(2, 9), st.integers(1, 9), st.integers(1, 30))
def test_runs_on_disk_merge_to_the_stable_order(events: list[Event], max_rows: int, piece: int, step: int) -> None:
    interner = Interner()
    with TimeSorter(interner, max_rows=max_rows) as sorter:
        for at in range(0, len(events), piece):
            sorter.add(EventBatch.from_events(events[at : at + piece], interner))
        sorter.finish()
        assert sorter.rows == len(events)
        got = [event for at in range(0, len(events), step) for event in sorter.slice(at, min(at + step, len(events)))]
    assert got == sorted(events, key=lambda event: event.ts_us)


def test_temporary_files_go_where_they_are_asked_to_and_vanish(tmp_path: Path) -> None:
    interner = Interner()
    with TimeSorter(interner, max_rows=2, folder=tmp_path) as sorter:
        sorter.add(EventBatch.from_events([Event("a", "b", ts, id=str(ts)) for ts in (5, 3, 4, 1, 2)], interner))
        sorter.finish()
        assert list(tmp_path.rglob("*.npy"))
        assert np.diff(sorter.slice(0, 5).ts_us).min() >= 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    interner = Interner()
    with (
        TimeSorter(interner, max_rows=1, folder=tmp_path / "missing") as sorter,
        pytest.raises(InputError, match="no room to sort the events on disk"),
    ):
        sorter.add(EventBatch.from_events([Event("a", "b", 1), Event("a", "b", 0)], interner))


def test_nothing_is_written_while_events_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    interner = Interner()
    with TimeSorter(interner, max_rows=10) as sorter:
        sorter.add(EventBatch.from_events([Event("a", "b", 1), Event("a", "b", 0)], interner))
        sorter.finish()
        assert not list(tmp_path.iterdir())
        assert sorter.slice(0, 2).ts_us.tolist() == [0, 1]
