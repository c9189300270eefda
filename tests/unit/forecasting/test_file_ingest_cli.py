"""`graphtide ingest FILE`: what it says of lines that are not counted, and of a file that grew or changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

Cli = Callable[..., Ran]
BEFORE = '{"src": "a", "dst": "b", "ts": 1767268800}\nno event\n'
MORE = '{"src": "b", "dst": "c", "ts": 1767268900}\n'


@pytest.fixture
def log(graphtide: Cli) -> Path:
    del graphtide  # it made the working directory
    path = Path("log.ndjson")
    path.write_text(BEFORE)
    return path


def test_without_a_target_it_says_how_to_keep_all_lines(graphtide: Cli, log: Path) -> None:
    said = graphtide("ingest", log).out
    assert "A sample of 1 is in" in said
    assert said.count("[dead_letters] target") == 1
    assert "There are no dead letters." in graphtide("deadletters", "list").err


def test_with_a_target_lines_are_listed_delivered_and_told_apart(
    graphtide: Cli, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_DEAD_LETTERS__TARGET", "file:dead.ndjson")
    for _ in range(2):
        said = graphtide("ingest", log).out
        assert "see: graphtide deadletters list" in said
        assert "[dead_letters] target" not in said
    (letter,) = map(json.loads, Path("dead.ndjson").read_text().splitlines())
    assert {key: letter[key] for key in ("topic", "partition", "offset", "value", "place")} == {
        "topic": "log.ndjson", "partition": 0, "offset": 2, "value": "no event", "place": "log.ndjson:2"
    }  # fmt: skip
    (listed,) = map(json.loads, graphtide("deadletters", "list", "--topic", log, "--json").out.splitlines())
    assert listed["id"] == letter["id"]
    refused = graphtide("deadletters", "replay", 1)
    assert refused.code == 2
    assert "fix: write its value, mended, to a file of its own and ingest that with --backfill" in refused.err


def test_a_file_that_grew_is_gone_on_with_and_says_so(graphtide: Cli, log: Path) -> None:
    graphtide("ingest", log)
    log.write_text(BEFORE + MORE)
    ran = graphtide("ingest", log, "--json")
    assert f"log.ndjson grew: what is behind byte {len(BEFORE)} is added" in ran.err
    done = json.loads(ran.out)
    assert (done["events"], done["graphs"][0]["events"], done["rejected"]) == (1, 2, 0)


def test_a_file_whose_beginning_changed_is_refused_by_name(graphtide: Cli, log: Path) -> None:
    graphtide("ingest", log)
    log.write_text(BEFORE.replace("b", "x") + MORE)
    ran = graphtide("ingest", log)
    assert ran.code == 1
    assert f"log.ndjson was ingested before up to byte {len(BEFORE)}, and what stands there has changed" in ran.err
    assert f"at:  log.ndjson, up to byte {len(BEFORE)}" in ran.err
    assert "fix: put back what stood there" in ran.err
