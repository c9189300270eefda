"""Live streams through ingestion into a store: through drops and crashes it holds what an undisturbed log gives."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.steps import SECOND_US
from stream.events import EventBatch, Interner
from stream.ingest import IngestOptions, ingest
from stream.sources.base import Position, SourceBatch
from stream.sources.live import LiveSource, open_live
from stream.store import open_reader

sys.path.append(str(Path(__file__).parents[1] / "unit" / "stream"))
from live_cases import (
    QUICK,
    Sent,
    Stage,
    jetstream_script,
    jetstream_server,
    mastodon_script,
    sse_server,
    wikimedia_script,
)


class CrashError(Exception):
    pass


@dataclass
class Crashing:
    """A live source in a process that dies now and then, with a batch that is not committed; it ends when told."""

    source: LiveSource
    rng: random.Random
    share: float
    until: int

    @property
    def name(self) -> str:
        return self.source.name

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        for batch in self.source.batches(resume_after):
            if self.rng.random() < self.share:
                raise CrashError
            yield batch
            if int(batch.position["number"]) >= self.until:
                return


@dataclass
class Undisturbed:
    stage: Stage
    name: str = "list:undisturbed"

    def batches(self, resume_after: Position | None) -> Iterator[SourceBatch]:
        assert resume_after is None
        yield SourceBatch(EventBatch.from_events(self.stage.events, Interner()), {"row": 1})


Serve = Callable[[Stage], AbstractContextManager[str]]
CASES: dict[str, tuple[Callable[[int, int], list[Sent]], Serve, int]] = {
    "wikimedia": (wikimedia_script, sse_server, 20_000),
    "jetstream": (jetstream_script, jetstream_server, 2 * SECOND_US),
    "mastodon": (mastodon_script, lambda stage: sse_server(stage, resumes=False), 30 * SECOND_US),
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_store_is_that_of_an_undisturbed_log(name: str, tmp_path: Path) -> None:
    script, serve, step_us = CASES[name]
    loses = name == "mastodon"  # what falls between two connections is gone there
    stage = Stage(script(500, 11), seed=11, drop_share=0.0 if loses else 0.04, rewind=5)
    store, plain = (f"sqlite:///{tmp_path}/{each}.db" for each in ("live", "plain"))
    options = IngestOptions(step_us=step_us)
    rng = random.Random(11)
    crashes = 0
    with serve(stage) as url:
        for _ in range(500):
            source = open_live(name, QUICK, url=url, environment={})
            try:
                result = ingest(Crashing(source, rng, 0.0 if loses else 0.2, len(stage.script)), store, options)
            except CrashError:
                crashes += 1
            else:
                break
        else:
            pytest.fail("it never ended")
    assert loses or (crashes > 3 and len(stage.dropped) > 5)
    ingest(Undisturbed(stage), plain, options)
    assert result.events == len(stage.events)
    assert result.late == 0
    garbled = [sent for sent in stage.script if sent.value.startswith(("{broken", "garbage"))]
    assert result.rejected == len(garbled)
    with open_reader(store) as ours, open_reader(plain) as theirs:
        assert ours.snapshots("default").digest() == theirs.snapshots("default").digest()
        assert len(ours.snapshots("default")) > 5
