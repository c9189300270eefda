from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forecasting.cli.ingested import run_to_end, write_rejects
from infra.settings import Settings
from stream.events import Event, EventBatch, Interner, Reject
from stream.ingest import IngestOptions
from stream.progress import IngestResult
from stream.sources.base import Claims, Part, PartitionedBatch


class Interrupted:
    """A source whose user has seen enough after one batch."""

    name = "interrupted"

    def batches(self, claims: Claims) -> Iterator[PartitionedBatch]:
        claims.claim(("0",))
        events = EventBatch.from_events([Event("a", "b", 1_700_000_000_000_000)], Interner())
        yield PartitionedBatch(events, (Part("0", 0, 1, {"offset": 1}),))
        raise KeyboardInterrupt


def test_who_stops_a_run_is_not_told_of_letters_that_there_are_not(tmp_path: Path) -> None:
    settings = Settings(
        store={"url": f"sqlite:///{tmp_path / 'store.db'}"},  # type: ignore[arg-type]
        dead_letters={"target": f"file:{tmp_path / 'letters.ndjson'}"},  # type: ignore[arg-type]
    )
    result, interrupted, notes = run_to_end(Interrupted(), settings, IngestOptions(), lambda _: None)
    assert (result.events, interrupted, notes) == (1, True, [])


@pytest.fixture
def rejected(tmp_path: Path) -> IngestResult:
    settings = Settings(store={"url": f"sqlite:///{tmp_path / 'store.db'}"})  # type: ignore[arg-type]
    result, _, _ = run_to_end(Interrupted(), settings, IngestOptions(), lambda _: None)
    return replace(result, rejects=(Reject("line 1", "x", "bad"),))


def test_the_sample_of_a_source_with_a_long_name_has_a_file_of_its_own(tmp_path: Path, rejected: IngestResult) -> None:
    names = ["g.short", *(f"g.{'é' * 120}{end}" for end in "ab")]
    paths = [write_rejects(rejected, tmp_path / "rejects", name) for name in names]
    assert paths[0] == tmp_path / "rejects" / "g.short.ndjson"
    assert len({path for path in paths if path is not None and path.exists()}) == 3


def test_a_sample_that_cannot_be_kept_is_told_and_no_error(
    tmp_path: Path, rejected: IngestResult, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert write_rejects(rejected, tmp_path / "file", "g.x") is None
    assert "note: the sample of rejected records is not kept: cannot write" in capsys.readouterr().err
