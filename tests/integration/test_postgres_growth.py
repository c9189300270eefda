"""A file that grows while several processes ingest it into one store: each line counts once, or the run is refused."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from infra.errors import InputError, StoreError
from stream.ingest import IngestOptions, ingest
from stream.sources.base import GoingOn, Position, ReadBefore, SourceBatch
from stream.sources.files import FileSource
from stream.store import open_writer
from stream.store.postgres import PostgresDatabase

Meanwhile = Callable[[], object]


def lines(count: int) -> str:
    return "".join(f"n{number} n{number % 3} {1_600_000_000 + number * 900}\n" for number in range(count))


def nothing() -> None:
    pass


class Interrupted(FileSource):
    """Something happens before it goes on, or before its first batch is there; each once."""

    def __init__(
        self, path: Path, *, before_it_begins: Meanwhile = nothing, before_a_batch: Meanwhile = nothing
    ) -> None:
        super().__init__(path, batch_rows=2)
        self._before_it_begins = before_it_begins
        self._before_a_batch = before_a_batch

    def goes_on(self, before: Sequence[ReadBefore]) -> GoingOn | None:
        going_on = super().goes_on(before)
        meanwhile, self._before_it_begins = self._before_it_begins, nothing
        meanwhile()
        return going_on

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        for number, batch in enumerate(super().batches(resume_after)):
            if number == 0:
                self._before_a_batch()
            yield batch


@pytest.fixture
def begun(postgres_url: str, tmp_path: Path) -> str:
    path = tmp_path / "begun.txt"
    path.write_text(lines(2))
    ingest(FileSource(path), postgres_url, IngestOptions())
    return postgres_url


def events(url: str) -> int:
    with open_writer(url) as writer:
        graph = writer.graph("default")
        assert graph is not None
        return graph.events


def grown(folder: Path, count: int) -> Path:
    path = folder / f"{count}.txt"
    path.write_text(lines(count))
    return path


@pytest.mark.parametrize("count", [6, 9])
def test_while_one_goes_on_another_is_refused(begun: str, tmp_path: Path, count: int) -> None:
    refused: list[str] = []

    def another() -> None:
        with pytest.raises(StoreError, match="another process goes on with what was read of this log") as failure:
            ingest(FileSource(grown(tmp_path, count)), begun, IngestOptions())
        refused.append(str(failure.value.fix))

    source = Interrupted(grown(tmp_path, 6), before_a_batch=another)
    assert ingest(source, begun, IngestOptions()).events == 4
    assert "wait until it is done" in refused[0]
    ingest(FileSource(grown(tmp_path, count)), begun, IngestOptions())
    assert events(begun) == count


def test_what_another_added_before_this_one_went_on_is_not_counted_again(begun: str, tmp_path: Path) -> None:
    def another() -> None:
        ingest(FileSource(grown(tmp_path, 6)), begun, IngestOptions())

    source = Interrupted(grown(tmp_path, 9), before_it_begins=another)
    assert ingest(source, begun, IngestOptions()).events == 3
    assert events(begun) == 9


def test_what_another_one_still_reads_is_told_from_what_was_broken_off(begun: str, tmp_path: Path) -> None:
    refused: list[str] = []

    def another(_: object) -> None:
        if not refused:
            with pytest.raises(InputError, match="another process began to read it") as failure:
                ingest(FileSource(grown(tmp_path, 9)), begun, IngestOptions())
            refused.append(str(failure.value.fix))

    ingest(FileSource(grown(tmp_path, 6), batch_rows=2), begun, IngestOptions(), another)
    assert "wait until it is" in refused[0]
    assert events(begun) == 6
    ingest(FileSource(grown(tmp_path, 9)), begun, IngestOptions())
    assert events(begun) == 9


def backfill(path: Path, count: int, url: str) -> None:
    path.write_text(lines(count).replace("n", "m"))
    ingest(FileSource(path, may_be_late=True), url, IngestOptions(backfill=True))


@pytest.mark.parametrize("is_committing", [False, True])
def test_what_another_read_first_of_a_new_log_is_not_counted_again(
    begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_committing: bool
) -> None:
    def another() -> None:
        monkeypatch.undo()
        backfill(tmp_path / "first.txt", 2, begun)

    def lock(database: PostgresDatabase) -> None:
        another()
        database.lock_beginnings()

    if is_committing:
        monkeypatch.setattr(PostgresDatabase, "lock_beginnings", lock)
    new = tmp_path / "new.txt"
    new.write_text(lines(4).replace("n", "m"))
    source = Interrupted(new, before_a_batch=nothing if is_committing else another)
    with pytest.raises(StoreError, match="another process has read of these logs meanwhile") as failure:
        ingest(source, begun, IngestOptions(backfill=True))
    assert "run the same command again" in str(failure.value.fix)
    assert events(begun) == 4
    backfill(new, 4, begun)
    assert events(begun) == 6


def test_who_begins_a_source_waits_for_another_that_does(postgres_url: str) -> None:
    with closing(PostgresDatabase(postgres_url)) as one, closing(PostgresDatabase(postgres_url)) as other:
        other.fetch("SET lock_timeout = '100ms'")
        one.begin()
        one.lock_beginnings()
        with pytest.raises(StoreError, match="lock timeout"):
            other.lock_beginnings()
        one.commit()
        other.lock_beginnings()


def test_what_another_reads_of_other_logs_meanwhile_is_in_nobodys_way(begun: str, tmp_path: Path) -> None:
    new = tmp_path / "new.txt"
    new.write_text(lines(4).replace("n", "o"))
    source = Interrupted(new, before_a_batch=lambda: backfill(tmp_path / "other.txt", 3, begun))
    assert ingest(source, begun, IngestOptions(backfill=True)).events == 4
    assert events(begun) == 9


def test_one_that_died_while_it_went_on_holds_nobody_up(begun: str, tmp_path: Path) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(Interrupted(grown(tmp_path, 6), before_a_batch=die), begun, IngestOptions())
    ingest(FileSource(grown(tmp_path, 9)), begun, IngestOptions())
    assert events(begun) == 9
    # What it would have added was added since.
    with pytest.raises(InputError, match="begins as a log that was ingested and has grown since"):
        ingest(FileSource(grown(tmp_path, 6)), begun, IngestOptions())
    assert events(begun) == 9
