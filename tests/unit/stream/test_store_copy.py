from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import StoreError
from infra.steps import HOUR_US
from stream.store import open_outbox, open_reader, open_writer
from stream.store.base import SnapshotReader, SnapshotTable
from stream.store.copy import Copied, compare_stores, copy_store, first_difference
from stream.store.writer import Closed
from tests.unit.stream.copy_cases import N_STEPS, check_whole, fill
from tests.unit.stream.store_contract import begin, ints, metrics, rows, table_of


@pytest.fixture
def urls(tmp_path: Path) -> list[str]:
    made = [f"sqlite:///{tmp_path / name}" for name in ("one.db", "two.db", "three.db")]
    fill(made[0])
    return made


class OnlyReads:
    """A reader of some other kind of store."""

    def __init__(self, reader: SnapshotReader) -> None:
        self.graphs, self.graph, self.snapshots, self.close = (
            reader.graphs,
            reader.graph,
            reader.snapshots,
            reader.close,
        )


def differences(one: str, two: str) -> list[str | None]:
    with open_reader(one) as first, open_reader(two) as second:
        return [comparison.difference for comparison in compare_stores(first, second)]


def test_a_copy_is_whole(urls: list[str]) -> None:
    copied: list[int] = []
    with open_reader(urls[0]) as reader, open_writer(urls[1]) as writer:
        assert copy_store(reader, writer, copied.append) == Copied(2, 2 * N_STEPS, whole=True)
    assert copied == sorted(copied)
    assert differences(*urls[:2]) == [None, None]
    with open_reader(urls[0]) as first, open_reader(urls[1]) as second:
        assert first.graphs() == second.graphs()
        comparisons = list(compare_stores(first, second))
        assert [(it.graph, it.snapshots, it.digest) for it in comparisons] == [
            (name, N_STEPS, first.snapshots(name).digest()) for name in ("g", "h")
        ]
    check_whole(urls[1])


def test_a_store_is_copied_into_an_empty_one(urls: list[str]) -> None:
    fill(urls[1])
    with open_reader(urls[0]) as reader, open_writer(urls[1]) as writer:
        with pytest.raises(StoreError, match="is not empty"):
            copy_store(reader, writer)
        with pytest.raises(StoreError, match="has a graph 'g' already"):
            copy_store(OnlyReads(reader), writer)  # type: ignore[arg-type]


def test_a_copy_that_fails_leaves_nothing(urls: list[str]) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with open_reader(urls[0]) as reader, open_writer(urls[1]) as writer:
        with pytest.raises(KeyboardInterrupt):
            copy_store(reader, writer, stop)
        assert copy_store(reader, writer).graphs == 2


@pytest.mark.parametrize("page", [7, 10**6])
def test_snapshots_alone_serve_but_take_no_events(urls: list[str], page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.store.copy._PAGE_STEPS", page)
    with open_reader(urls[0]) as reader, open_writer(urls[1]) as writer:
        with writer.transaction():
            writer.enable_projection("influxdb")
        assert copy_store(OnlyReads(reader), writer) == Copied(2, 2 * N_STEPS, whole=False)  # type: ignore[arg-type]
        with writer.transaction():
            source = writer.add_source("kafka", split_by_type=False)
            graph = writer.graph("g")
            assert graph is not None
            with pytest.raises(StoreError, match="rebuilt from snapshots alone"):
                writer.link(source, "t-0", graph)
    assert differences(*urls[:2]) == [None, None]
    with open_reader(urls[0]) as first, open_reader(urls[1]) as second:
        ours, theirs = first.graph("g"), second.graph("g")
        assert (ours.snapshots, ours.late, ours.final_us) == (theirs.snapshots, theirs.late, theirs.final_us)
        assert (ours.first_step_us, ours.last_step_us) == (theirs.first_step_us, theirs.last_step_us)
    with open_outbox(urls[1]) as outbox:
        assert outbox.waiting("influxdb") == 2 * N_STEPS


def test_the_first_difference_is_named(urls: list[str]) -> None:
    with open_reader(urls[0]) as reader, open_writer(urls[1]) as writer:
        copy_store(reader, writer)
        with writer.transaction():
            begin(writer, "only here")
            graph = writer.graph("h")
            assert graph is not None
            writer.revise(graph, Closed(ints(9) * HOUR_US, table_of(metrics(1, 9))), rows())
    assert differences(*urls[:2]) == [
        None,
        "step 1970-01-01T09:00:00Z: revision 0 in the first store, 1 in the second",
        "only the second store has this graph",
    ]
    assert differences(urls[1], urls[0])[2] == "only the first store has this graph"


def table(**changes: Any) -> SnapshotTable:
    columns = {
        "graph": "g",
        "step_us": 10,
        "metrics": ("events", "reciprocity"),
        "step_start_us": ints(0, 10),
        "revision": ints(0, 0),
        "values": np.array([[1.0, 0.5], [2.0, 0.25]]),
    }
    return SnapshotTable(**(columns | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step_us": 20}, "steps of 10 us in the first store, of 20 us in the second"),
        ({"step_start_us": ints(0, 20)}, "snapshot 2 is of step 1970-01-01T00:00:00.000010Z in the first store, of"),
        ({"revision": ints(0, 3)}, "00.000010Z: revision 0 in the first store, 3 in the second"),
        (
            {"values": np.array([[1.0, 0.5], [2.0, np.nextafter(0.25, 1)]])},
            "reciprocity is 0.25 in the first store, 0.25000000000000006 in",
        ),
        (
            {"step_start_us": ints(0), "revision": ints(0), "values": np.array([[1.0, 0.5]])},
            "2 snapshots in the first store, 1 in the second",
        ),
    ],
)
def test_differences_are_told_in_words(changes: dict[str, Any], words: str) -> None:
    assert words in first_difference(table(), table(**changes))
