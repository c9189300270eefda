from collections.abc import Iterator
from pathlib import Path

from forecasting.cli.ingested import run_to_end
from infra.settings import Settings
from stream.events import Event, EventBatch, Interner
from stream.ingest import IngestOptions
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
