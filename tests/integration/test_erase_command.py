"""`graphtide erase`: where a name stands after an ingestion, and what a person is told of what is left of it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.spool.file import Spool
from tests.conftest import Ran

Cli = Callable[..., Ran]
STORE = "sqlite:///store/store.db"


@pytest.fixture
def ingested(graphtide: Cli) -> None:
    """Make a store of graphs by type, with rejects that mention alice and others that do not."""
    events = [
        {"src": "alice", "dst": "bob", "ts": 1_600_000_000, "type": "follow"},
        {"src": "bob", "dst": "alice", "ts": 1_600_007_200, "type": "reply"},
        {"src": "bob", "dst": "cyd", "ts": 1_600_014_400, "type": "like"},
        {"src": "", "dst": "bob", "ts": 1_600_014_400, "note": "hi\nalice"},
        {"src": "", "dst": "cyd", "ts": 1_600_014_400},
    ]
    Path("events.ndjson").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    Path("more.ndjson").write_text(json.dumps({"src": "alice"}) + "\n" + json.dumps(events[0] | {"ts": 1_600_090_000}))
    for name in ("events", "more"):
        call = ("ingest", f"{name}.ndjson", "--graph", "town", "--store", STORE, "--step", "1h", "--split-by-type")
        assert graphtide(*call).code == 0


def files_with(name: str) -> set[str]:
    return {str(path) for path in Path("store").rglob("*") if path.is_file() and name.encode() in path.read_bytes()}


@pytest.mark.usefixtures("ingested")
def test_a_name_is_in_no_file_of_the_store_any_more(graphtide: Cli) -> None:
    rejects = Path("store/rejects")
    assert files_with("alice") >= {"store/store.db", *(str(path) for path in rejects.iterdir())}
    assert len(list(rejects.iterdir())) == 2
    ran = graphtide("erase", "town", "alice", "--store", STORE)
    assert ran.code == 0, ran.err
    assert "Erased the node from graphs 'town', 'town:follow', 'town:reply'." in ran.err
    assert "2 lines of the files in store/rejects" in ran.err
    assert files_with("alice") == set()
    (left,) = rejects.iterdir()
    (line,) = left.read_text().splitlines()
    assert "cyd" in json.loads(line)["record"]
    again = graphtide("erase", "town", "alice", "--store", STORE)
    assert (again.code, again.err.strip()) == (0, "graph 'town' has no node of that name")


@pytest.mark.usefixtures("ingested")
def test_a_reader_that_keeps_the_name_on_the_disk_is_told(graphtide: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.store.sqlite_file.BUSY_TIMEOUT_S", 0.05)
    reader = sqlite3.connect("store/store.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM graphs").fetchall()
    ran = graphtide("erase", "town", "alice", "--store", STORE)
    assert ran.code == 1
    assert "Erased the node" in ran.err
    assert "may still stand in unused parts" in ran.err
    assert "run the same command again" in ran.err
    reader.close()
    assert graphtide("erase", "town", "alice", "--store", STORE).code == 0
    assert files_with("alice") == set()


@pytest.mark.usefixtures("ingested")
def test_what_waits_in_the_spool_would_bring_the_name_back(graphtide: Cli) -> None:
    def wait(*names: str) -> None:
        records = [json.dumps({"src": name, "dst": "dan", "ts": 1_600_100_000}).encode() for name in names]
        with Spool(Path(".graphtide/spool.db")) as spool:
            spool.append("town", records, b"{}", owner="", idempotency_key=None, digest=b"", max_bytes=1 << 20)

    wait("bob", "cyd")
    assert graphtide("erase", "town", "cyd2", "--store", STORE).code == 0
    wait("dan", "alice")
    wait("bob")
    ran = graphtide("erase", "town", "alice", "--store", STORE)
    assert ran.code == 1
    assert "Erased the node" in ran.err
    assert "the name will come back: requests that mention it wait for ingestion, 1 of them" in ran.err
    assert ".graphtide/spool.db" in ran.err
    assert "graphtide ingest spool" in ran.err
    assert graphtide("ingest", "spool", "--store", STORE, "--step", "1h").code == 0
    assert graphtide("erase", "town", "alice", "--store", STORE).code == 0
    assert files_with("alice") == set()


@pytest.mark.usefixtures("ingested")
def test_copies_of_the_store_that_keep_the_name_are_told(graphtide: Cli) -> None:
    store = Path("store/store.db")
    kept = ["store.db.schema-1", "store.db.schema-1-2", ".store.db.0123abcd.part", ".store.db.schema-1.0123abcd.part"]
    copies = sorted(store.with_name(name) for name in kept)
    others = [store.with_name(name) for name in ("store.db.schema-of-mine", "other.db.schema-1")]
    for path in (*copies, *others):
        path.write_bytes(store.read_bytes())
    ran = graphtide("erase", "town", "alice", "--store", STORE)
    assert ran.code == 1
    assert "Erased the node" in ran.err
    assert "may still stand in copies of the store, which graphtide store migrate has kept" in ran.err
    assert f"rm {' '.join(map(str, copies))}\n" in ran.err
    assert files_with("alice") == {str(path) for path in (*copies, *others)}
    for path in copies:
        path.unlink()
    assert graphtide("erase", "town", "alice", "--store", STORE).code == 0


@pytest.mark.usefixtures("ingested")
def test_a_file_of_rejects_that_cannot_be_read_is_told(graphtide: Cli) -> None:
    Path("store/rejects/odd.ndjson").mkdir()
    ran = graphtide("erase", "town", "alice", "--store", STORE)
    assert ran.code == 1
    assert "store/rejects/odd.ndjson" in ran.err
    assert "run the same command again" in ran.err
