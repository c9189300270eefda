"""Live streams through ingestion into a store: through drops and crashes it holds what an undisturbed log gives."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from forecasting.cli.live import LIVE_NAMES
from infra.errors import GraphtideError
from infra.steps import SECOND_US
from stream.events import EventBatch, Interner
from stream.ingest import IngestOptions, ingest
from stream.sources.base import Position, SourceBatch
from stream.sources.live import LIVE_SOURCES, LiveSource, open_live
from stream.store import open_reader
from tests.conftest import Ran
from tests.unit.stream.live_cases import (
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


def ingest_by_hand(folder: Path, url: str, *, until_events: int) -> Ran:
    """Run `graphtide ingest wikimedia` until the store has so many events in closed steps, then press Ctrl-C."""
    (folder / "config.toml").write_text("[live]\nflush_interval_s = 0.05\nbackoff_min_s = 0.01\nbackoff_max_s = 0.05\n")
    # What runs in the background of a shell ignores Ctrl-C, and so would its children.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeding}; from forecasting.cli import main; main()"]
    arguments = ["ingest", "wikimedia", "--url", url, "--step", "1s", "--graph", "wiki", "--json"]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, text=True
    )
    try:
        until_s = time.monotonic() + 60
        while closed_events(folder) < until_events:
            assert time.monotonic() < until_s
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Ran(process.returncode, out, err)


def closed_events(folder: Path) -> int:
    path = folder / ".graphtide" / "store.db"
    if not path.exists():
        return 0
    try:
        with open_reader(f"sqlite:///{path}") as reader:
            return sum(graph.events for graph in reader.graphs())
    except GraphtideError:  # it is being made
        return 0


def test_the_command_reads_a_stream_until_ctrl_c_and_goes_on_from_there(clean_environment: Path) -> None:
    # A third of a second between two events: each second is a step.
    script = [
        Sent(sent.value.replace("2026-01-01T00:00:00", f"2026-01-01T00:{at // 60:02}:{at % 60:02}"), sent.time_us + at)
        for at, sent in enumerate(wikimedia_script(120, 3))
    ]
    events = sum('"domain": "en' in sent.value for sent in script)
    stage = Stage(script[:60], seed=3, drop_share=0.05)
    half = sum('"domain": "en' in sent.value for sent in script[:60])
    with sse_server(stage) as url:
        first = ingest_by_hand(clean_environment, url, until_events=half - 1)
        assert first.code == 130
        assert json.loads(first.out)["events"] == half
        stage.script += script[60:]
        second = ingest_by_hand(clean_environment, url, until_events=events - 1)
    told = json.loads(second.out)
    assert (second.code, told["events"], told["late"], told["ended"]) == (130, events, 0, False)
    assert told["rejected"] == sum(sent.value.startswith("{broken") for sent in script)
    assert "the same command goes on from there" in second.err
    assert "last-event-id" not in stage.requests[0]


def test_options_that_do_not_fit_a_live_source_are_told(graphtide: Callable[..., Ran], clean_environment: Path) -> None:
    assert LIVE_NAMES == LIVE_SOURCES
    (clean_environment / "log.csv").write_text("src,dst,ts\na,b,1\n")
    for arguments, said in (
        (("log.csv", "--url", "https://h/"), "--url is for live sources"),
        (("wikimedia", "--format", "csv"), "wikimedia has a shape of its own"),
        (("jetstream", "--url", "https://h/"), "is no address of a live source"),
    ):
        ran = graphtide("ingest", *arguments)
        assert ran.code == 2
        assert said in ran.err
