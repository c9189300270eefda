"""Bad input: each ends with exit code 1 or 2, a message that names the input and the fix, and nothing half-written."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

Cli = Callable[..., Ran]

GOOD = "a b 1254189600\nb c 1254193200\nc a 1254196800\n"


def assert_refused(ran: Ran, *said: str, code: int | None = None) -> None:
    """The call failed in words, with all of `said` in them."""
    assert ran.code in ({1, 2} if code is None else {code}), ran.err
    assert "Traceback" not in ran.err
    assert "this should not happen" not in ran.err
    assert ran.out == ""
    for part in said:
        assert part in ran.err, ran.err


def assert_nothing_written(folder: Path, *inputs: str) -> None:
    """Beside the inputs there is nothing: no store, no part of a file."""
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    # The lock that keeps a second writer out stays: removing it would let two writers in.
    assert left - {".graphtide/store.db.lock"} == set(inputs)


def write(name: str, content: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def test_no_such_file(graphtide: Cli, tmp_path: Path) -> None:
    assert_refused(graphtide("ingest", "absent.csv"), "absent.csv", "fix:")
    assert_nothing_written(tmp_path)


def test_folder_without_logs(graphtide: Cli, tmp_path: Path) -> None:
    write("folder/picture.png", b"\x89PNG\r\n\x1a\n")
    write("folder/README.md", "words")
    assert_refused(graphtide("ingest", "folder"), "folder", "fix:")
    assert_nothing_written(tmp_path, "folder/README.md", "folder/picture.png")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("junk.txt", bytes(range(256)) * 64, "junk.txt"),
        ("zeros.txt", bytes(5000), "zeros.txt"),
        ("cut.txt.gz", gzip.compress(GOOD.encode() * 2000, mtime=0)[:-20], "cut.txt.gz"),
        ("cut.json", b'[{"src": "a", "dst": "b", "ts": 1254189600}, {"src": "b"', "cut.json"),
        ("words.txt", b"It was a dark and stormy night;\nthe rain fell in torrents\n", "words.txt"),
        ("empty.csv", b"", "empty.csv"),
        ("header.csv", b"src,dst,ts\n", "header.csv"),
        ("missing.csv", b"src,when\na,1254189600\n", "dst"),
        ("missing.ndjson", b'{"src": "a", "ts": 1254189600}\n', "dst"),
        ("text.csv", b"src,dst,ts\na,b,yesterday\n", "yesterday"),
        ("negative.csv", b"src,dst,ts\na,b,-5\n", "negative.csv"),
        ("absurd.csv", b"src,dst,ts\na,b,99999999999999999999999\n", "absurd.csv"),
        ("nan.csv", b"src,dst,weight,ts\na,b,nan,1254189600\n", "nan.csv"),
    ],
)
def test_log_that_holds_no_event(graphtide: Cli, tmp_path: Path, name: str, content: bytes, said: str) -> None:
    write(name, content)
    assert_refused(graphtide("ingest", name), name, said, "fix:", code=1)
    assert_nothing_written(tmp_path, name)


def test_milliseconds_where_seconds_were_said(graphtide: Cli, tmp_path: Path) -> None:
    name = write("ms.csv", "src,dst,ts\na,b,1254189600000\nb,c,1254193200000\n")
    assert_refused(graphtide("ingest", name, "--time-unit", "s"), "ms.csv", "--time-unit ms", code=1)
    assert_nothing_written(tmp_path, name)


def test_milliseconds_are_detected_and_said(graphtide: Cli) -> None:
    name = write("ms.csv", "src,dst,ts\na,b,1254189600000\nb,c,1254193200000\n")
    ran = graphtide("ingest", name, "--graph", "g")
    assert ran.code == 0
    assert "ms" in ran.err or "millisecond" in ran.err
    (graph,) = json.loads(graphtide("graphs", "--json").out)
    assert (graph["first_step"], graph["snapshots"]) == ("2009-09-29T02:00:00Z", 2)


def test_bad_rows_are_counted_sampled_and_reported(graphtide: Cli, tmp_path: Path) -> None:
    name = write(
        "mixed.csv",
        "src,dst,weight,ts\na,b,1,1254189600\nb,c,nan,1254189601\n,c,1,1254189602\nc,a,1,soon\nc,b,1,-1\nb,a,1,1254193200\n",
    )
    ran = graphtide("ingest", name, "--graph", "g", "--json")
    assert ran.code == 0
    summary = json.loads(ran.out)
    assert (summary["events"], summary["rejected"]) == (2, 4)
    rejects = [json.loads(line) for line in Path(summary["reject_file"]).read_text().splitlines()]
    assert [reject["place"].rsplit(":", 1)[1] for reject in rejects] == ["3", "4", "5", "6"]
    assert all(reject["reason"] and reject["record"] for reject in rejects)
    table = graphtide("ingest", name, "--graph", "g")
    assert "4 records were rejected" in table.out
    assert "nothing changed" in table.out
    assert "mixed.csv:3" in table.out


def test_strict_stops_at_the_first_bad_row(graphtide: Cli, tmp_path: Path) -> None:
    name = write("mixed.csv", "src,dst,ts\na,b,1254189600\nb,c,soon\nc,a,later\n")
    assert_refused(graphtide("ingest", name, "--strict"), "mixed.csv:3", "soon", code=1)
    assert_nothing_written(tmp_path, name)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--step", "0h"), "--step cannot be '0h'"),
        (("--step", "fortnight"), "--step cannot be 'fortnight'"),
        (("--format", "xml"), "xml"),
        (("--time-unit", "hours"), "hours"),
        (("--columns", "source"), "--columns"),
        (("--columns", "srk=a"), "srk"),
        (("--graph", "Not A Name"), "Not A Name"),
        (("--graph", ""), "--graph"),
        (("--store", "redis://x"), "redis://…"),
        (("--config", "absent.toml"), "absent.toml"),
    ],
)
def test_wrong_flag(graphtide: Cli, tmp_path: Path, flags: tuple[str, str], said: str) -> None:
    name = write("good.txt", GOOD)
    call = (*flags, "ingest", name) if flags[0] == "--config" else ("ingest", name, *flags)
    assert_refused(graphtide(*call), said, "fix:", code=2)
    assert_nothing_written(tmp_path, name)


def test_unknown_flag_and_command(graphtide: Cli) -> None:
    assert_refused(graphtide("ingest", "x", "--stepp", "1h"), "--step", code=2)
    assert_refused(graphtide("inges", "x"), "ingest", code=2)


def test_store_that_cannot_be_made(graphtide: Cli, tmp_path: Path) -> None:
    name = write("good.txt", GOOD)
    # Below a regular file: not even root can write there.
    ran = graphtide("ingest", name, "--store", f"sqlite:///{tmp_path}/good.txt/store.db")
    assert_refused(ran, "good.txt/store.db", "fix:", code=1)
    assert Path(name).read_text() == GOOD
    assert_nothing_written(tmp_path, name)


def test_store_that_is_another_file(graphtide: Cli, tmp_path: Path) -> None:
    name = write("good.txt", GOOD)
    other = write("other.db", "no store at all, but long enough to have a header of a kind")
    assert_refused(graphtide("ingest", name, "--store", f"sqlite:///{other}"), "other.db", "fix:", code=1)
    assert Path(other).read_text().startswith("no store")


def test_full_store_keeps_what_was_committed(graphtide: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (f"n{index % 997} n{index % 1009} {1254189600 + 60 * index}" for index in range(20_000))
    name = write("large.txt", "\n".join(rows) + "\n")
    connect = sqlite3.connect

    def small(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 90")
        return connection  # type: ignore[no-any-return]

    monkeypatch.setenv("GRAPHTIDE_INGEST__BATCH_ROWS", "1000")
    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", small)
        assert_refused(graphtide("ingest", name, "--graph", "g"), "no space left", ".graphtide/store.db", code=1)
    # With room again the same command finishes, and the store equals that of an undisturbed run.
    assert graphtide("ingest", name, "--graph", "g").code == 0
    assert graphtide("ingest", name, "--graph", "g", "--store", "sqlite:///fresh.db").code == 0
    call = ("snapshots", "g", "--format", "csv")
    assert graphtide(*call).out == graphtide(*call, "--store", "sqlite:///fresh.db").out


def test_store_of_a_newer_schema(graphtide: Cli) -> None:
    name = write("good.txt", GOOD)
    assert graphtide("ingest", name).code == 0
    with sqlite3.connect(".graphtide/store.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for call in (("ingest", name), ("graphs",), ("snapshots", "default"), ("forecast", "default"), ("train",)):
        assert_refused(graphtide(*call), "schema 99", "upgrade", code=1)


def test_step_that_contradicts_the_store(graphtide: Cli) -> None:
    assert graphtide("ingest", write("good.txt", GOOD), "--graph", "g", "--step", "1h").code == 0
    before = graphtide("snapshots", "g", "--format", "csv").out
    more = write("more.txt", "d e 1254290000\n")
    assert_refused(graphtide("ingest", more, "--graph", "g", "--step", "1d"), "1h", "1d", "--step 1h", code=1)
    assert graphtide("snapshots", "g", "--format", "csv").out == before


@pytest.mark.parametrize("command", ["snapshots", "forecast", "train"])
def test_unknown_graph_and_no_store(graphtide: Cli, toy_store: str, tmp_path: Path, command: str) -> None:
    assert_refused(graphtide(command, "toi", "--store", toy_store), "'toi'", "did you mean toy?", code=1)
    assert_refused(graphtide(command, "toy"), ".graphtide/store.db", "graphtide ingest", code=1)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize("horizon", ["0", "-1", "36501", "abc", "1.5", ""])
def test_horizon_out_of_range(graphtide: Cli, toy_store: str, tmp_path: Path, horizon: str) -> None:
    ran = graphtide("forecast", "toy", "--store", toy_store, f"--horizon={horizon}", "--format", "csv", "-o", "x.csv")
    assert_refused(ran, "--horizon", repr(horizon), "from 1 to 36500", code=2)
    assert_nothing_written(tmp_path)


def test_unknown_format(graphtide: Cli, toy_store: str) -> None:
    assert_refused(graphtide("forecast", "toy", "--store", toy_store, "--format", "xls"), "xls", "parquet", code=2)


def test_corrupt_or_mismatched_checkpoint(graphtide: Cli, toy_store: str, tmp_path: Path) -> None:
    folder = Path(".graphtide/models/toy")
    card = write(str(folder / "card.json"), "{broken")
    call = ("forecast", "toy", "--store", toy_store, "--horizon", "2", "--format", "csv", "-o", "x.csv")
    assert_refused(graphtide(*call), "card", "graphtide train", code=1)
    write(card, json.dumps({"format": 1, "schema": 7}))
    assert_refused(graphtide(*call), "card", "graphtide train", code=1)
    assert_nothing_written(tmp_path, card)
    doctor = json.loads(graphtide("doctor", "--json").out)
    assert any(finding["name"] == "models" and finding["status"] == "warn" for finding in doctor["findings"])
