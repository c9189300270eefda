"""Many runs over what grows: what each of them notes, and what those of earlier versions have noted."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions
from stream.sources.base import Position
from stream.sources.extents import Extent, left_with, of_position
from tests.unit.stream.growth_cases import Runs, add, lines_of
from tests.unit.stream.ingest_cases import Killed, query
from tests.unit.stream.log_cases import write


def positions(runs: Runs) -> list[Position]:
    return [json.loads(str(row[0])) for row in query(runs.store, "SELECT position FROM partitions ORDER BY source_id")]


def change_positions(runs: Runs, change: Callable[[Position], Position]) -> None:
    changed = [json.dumps(change(position)) for position in positions(runs)]
    with sqlite3.connect(runs.store) as connection:
        ids = connection.execute("SELECT source_id FROM partitions ORDER BY source_id").fetchall()
        for (source_id,), position in zip(ids, changed, strict=True):
            connection.execute("UPDATE partitions SET position = ? WHERE source_id = ?", (position, source_id))
    connection.close()


def of_earlier_version(position: Position) -> Position:
    return {key: position[key] for key in ("mode", "row", "rows", "rejected")}


def of_earlier_version_with_its_size(position: Position) -> Position:
    (extent,) = of_position(position)
    assert isinstance(extent, Extent)
    return of_earlier_version(position) | {"path": extent.path, "bytes": extent.bytes, "next_byte": extent.next_byte}


def test_a_run_notes_what_it_read_and_not_again_what_others_did(tmp_path: Path, folder: Path, runs: Runs) -> None:
    for number in range(4):
        write(folder, f"a{number}.txt", lines_of(number))
    for number in range(4):
        # A new log, and one that grew after some runs.
        write(folder, f"b{number}.txt", lines_of(5 + number))
        add(folder / f"a{number}.txt", lines_of(9))
        runs.run(folder)
    noted = positions(runs)
    assert [sum(isinstance(each, Extent) for each in of_position(position)) for position in noted] == [5, 2, 2, 2]
    assert [len(left_with(position)) for position in noted] == [0, 1, 1, 1]
    (folder / "b0.txt").unlink()
    assert (runs.run(folder).events, runs.events()) == (0, 12)
    assert [each for each in of_position(positions(runs)[-1]) if isinstance(each, Extent)] == []
    add(folder / "a0.txt", lines_of(12))
    write(folder, "b0.txt", lines_of(5))
    assert runs.run(folder).events == 1
    whole = Runs(tmp_path, "whole.db")
    whole.run(folder)
    assert runs.snapshots() == whole.snapshots()


def test_what_is_as_before_may_be_moved_and_another_take_its_place(folder: Path, runs: Runs) -> None:
    path = write(folder, "log.txt", lines_of(1))
    write(folder, "other.txt", lines_of(0))
    runs.run(folder)
    for number in range(3):
        path.rename(folder / f"log-{number}.txt")
        write(folder, "log.txt", lines_of(number + 2))
        assert runs.run(folder).events == 1
    assert (runs.run(folder, backfill=True).unchanged, runs.events()) == (True, 5)


def test_a_run_that_was_broken_off_leaves_what_is_as_before_where_it_is(folder: Path, runs: Runs) -> None:
    write(folder, "a.txt", lines_of(1))
    runs.run(folder)
    new = write(folder, "b.txt", lines_of(2, 3, 4))
    with pytest.raises(Killed):
        runs.run(folder, kill_after=1, batch_rows=1)
    write(folder, "c.txt", lines_of(5))
    with pytest.raises(InputError, match="grew after reading it was broken off"):
        runs.run(folder)
    (folder / "c.txt").unlink()
    runs.run(folder)
    add(new, lines_of(6))
    assert (runs.run(folder).events, runs.events()) == (1, 5)


def test_what_was_read_for_another_graph_is_not_unpacked(tmp_path: Path, folder: Path, runs: Runs) -> None:
    path = write(folder, "a.txt", lines_of(1))
    Runs(tmp_path, options=DecodeOptions(graph="other")).run(path)
    change_positions(runs, lambda position: position | {"logs": "broken"})
    runs.run(path)
    add(path, lines_of(2))
    assert runs.run(path).events == 1


def test_a_folder_that_goes_on_does_not_count_again_what_was_read_with_other_flags(
    tmp_path: Path, folder: Path, runs: Runs
) -> None:
    other = write(folder, "b.csv", "src,dst,ts\n" + "".join(f"a,b,{1_600_000_000 + 3600 * hour}\n" for hour in (1, 2)))
    Runs(tmp_path, options=DecodeOptions(format="csv")).run(other)
    runs.run(write(folder, "a.txt", lines_of(5)))
    with pytest.raises(InputError, match=r"before with other flags \(format=csv\)") as failure:
        runs.run(folder)
    assert str(failure.value.place).startswith(f"{other}, up to byte")
    assert runs.events() == 3


@pytest.mark.parametrize("more", [(), (3,)], ids=["as it was", "grown"])
@pytest.mark.parametrize("backfill", [False, True])
def test_what_an_earlier_version_read_is_not_counted_again(
    folder: Path, runs: Runs, more: tuple[float, ...], *, backfill: bool
) -> None:
    path = write(folder, "b.txt", lines_of(1, 2))
    runs.run(path)
    change_positions(runs, of_earlier_version_with_its_size if more else of_earlier_version)
    add(path, lines_of(*more))
    other = write(folder, "a.txt", lines_of(5))
    if not backfill:
        runs.run(other)
    with pytest.raises(InputError, match="was ingested before by an earlier version") as failure:
        runs.run(folder, backfill=backfill)
    assert failure.value.place == str(path)
    assert runs.events() == (2 if backfill else 3)
    path.unlink()
    write(folder, "c.txt", lines_of(6))
    runs.run(folder, backfill=backfill)
    assert runs.events() == 4


def test_what_an_earlier_version_broke_off_while_it_went_on_is_refused(tmp_path: Path, runs: Runs) -> None:
    path = write(tmp_path, "log.txt", lines_of(1, 2))
    runs.run(path)
    add(path, lines_of(3, 4))
    with pytest.raises(Killed):
        runs.run(path, kill_after=1, batch_rows=1)
    change_positions(runs, lambda position: of_earlier_version(position) | {"after": "file:", "begin_byte": 32})
    with pytest.raises(InputError, match="an earlier version broke off while it added"):
        runs.run(path)
