"""`graphtide ingest FILE`: what it says of lines that are not counted, and of a file that grew or changed."""

import gzip
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
    assert f"log.ndjson was ingested before up to byte {len(BEFORE)}, and holds something else now" in ran.err
    assert f"at:  log.ndjson, up to byte {len(BEFORE)}" in ran.err
    assert "fix: if it was changed, put back what stood there" in ran.err


def test_a_log_that_was_rotated_is_added_as_it_says(graphtide: Cli, log: Path) -> None:
    graphtide("ingest", log)
    log.rename("log.ndjson.1")
    log.write_text(MORE)
    for flags in ([], ["--backfill"]):
        ran = graphtide("ingest", log, *flags)
        assert ran.code == 1
        assert "and holds something else now" in ran.err
        assert "if it is another log, as after a rotation" in ran.err
    assert f"(ln {log} NEW) and ingest that with --backfill" in ran.err
    new = Path("new.ndjson")
    new.hardlink_to(log)
    assert graphtide("ingest", new, "--backfill").code == 0
    log.write_text(MORE + MORE)
    assert graphtide("ingest", log).code == 0
    assert [graph["events"] for graph in json.loads(graphtide("graphs", "--json").out)] == [3]


def test_a_packed_file_that_grew_is_gone_on_with_and_says_so(graphtide: Cli) -> None:
    packed = Path("log.gz")
    packed.write_bytes(gzip.compress(BEFORE.encode()))
    graphtide("ingest", packed)
    packed.write_bytes(packed.read_bytes() + gzip.compress(MORE.encode()))
    ran = graphtide("ingest", packed, "--backfill", "--json")
    assert f"log.gz grew: what is behind byte {len(BEFORE)} of what it unpacks to is added" in ran.err
    done = json.loads(ran.out)
    assert (done["events"], done["graphs"][0]["events"], done["rejected"]) == (1, 2, 0)


def test_a_folder_that_grew_is_gone_on_with_and_a_file_that_changed_named(graphtide: Cli, log: Path) -> None:
    folder = Path("logs")
    folder.mkdir()
    log = log.rename(folder / log.name)
    graphtide("ingest", log)
    (folder / "more.ndjson").write_text(MORE)
    done = json.loads(graphtide("ingest", folder, "--json").out)
    assert (done["events"], done["graphs"][0]["events"]) == (1, 2)
    ran = graphtide("ingest", folder / "more.ndjson", "--backfill")
    assert "more.ndjson holds nothing that was not ingested before" in ran.err
    log.write_text(MORE + BEFORE)
    for flags in ([], ["--backfill"]):
        ran = graphtide("ingest", folder, *flags)
        assert ran.code == 1
        assert f"log.ndjson was ingested before up to byte {len(BEFORE)}, and holds something else now" in ran.err
    assert [graph["events"] for graph in json.loads(graphtide("graphs", "--json").out)] == [2]


def test_following_with_backfill_what_was_ingested_is_refused(graphtide: Cli, log: Path) -> None:
    graphtide("ingest", log)
    ran = graphtide("ingest", log, "--follow", "--backfill")
    assert ran.code == 1
    assert "fix: leave out --follow" in ran.err
