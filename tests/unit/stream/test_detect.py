"""The format, the columns and the unit of a log are told from its beginning, or the error says what to do."""

import pytest

from infra.errors import InputError, UsageError
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.detect import check_options, detect
from stream.decoders.dialect import Dialect
from stream.decoders.log import LogReader
from stream.events import Event, Interner


def told(text: str, *, whole: bool = True, **options: object) -> Dialect | None:
    return detect(text.encode(), label="log", options=DecodeOptions(**options), whole=whole)  # type: ignore[arg-type]


def read(text: str, **options: object) -> tuple[list[Event], LogReader]:
    reader = LogReader("log", EventBuilder(Interner(), DecodeOptions(**options)))  # type: ignore[arg-type]
    batches = reader.feed(text.encode()) + reader.finish()
    return [event for batch in batches for event in batch], reader


@pytest.mark.parametrize(
    ("text", "kind", "roles"),
    [
        ("1 2 5\n", "edgelist", "src dst ts"),
        ("1\t2\t5\r\n", "edgelist", "src dst ts"),
        ("a b\tc d\t5\n", "edgelist", "src dst ts"),
        ("% asym\n# x\n\n1 2 1 1225229529\n", "edgelist", "src dst weight ts"),
        ("1 2 1341100972 MT\n", "edgelist", "src dst ts type"),
        ("a b\tc d\t2013-12-31 16:39:58\n", "edgelist", "src dst ts"),
        ("7188,1,10,1407470400\n", "delimited", "src dst weight ts"),
        ("1, 2, 5\n", "delimited", "src dst ts"),
        ("1 2 soon\n1 2 5\n", "edgelist", "src dst ts"),
        ("ann bob soon\nann bob 1225229529\n", "edgelist", "src dst ts"),
        ("ann bob soon\nann bob 2010-11-08\n", "edgelist", "src dst ts"),
        ("source target timestamp\n1 2 5\n", "edgelist", "src dst ts"),
        ("from,to,feature,time\n6,2,4,1289241911.72836\n", "delimited", "src dst ts"),
        ("SOURCE_SUBREDDIT\tTARGET_SUBREDDIT\tTIMESTAMP\n", "", ""),
        ("User-Id;Item_ID;TimeStamp;w\n1;2;3;4\n", "delimited", "src dst ts weight"),
        ('{"a": 1}\n{"b": 2}\n', "ndjson", ""),
        ('{"broken": \n{"b": 2}\n', "ndjson", ""),
        ('{\n  "a": 1\n}\n', "json", ""),
        (' [{"a": 1}]', "json", ""),
        ('\ufeff{"a": 1}', "ndjson", ""),
    ],
)
def test_formats_and_columns(text: str, kind: str, roles: str) -> None:
    if not kind:
        with pytest.raises(InputError, match="no column for src, dst"):
            told(text)
        return
    dialect = told(text)
    assert dialect is not None
    assert dialect.format == kind
    assert " ".join(sorted(dialect.layout, key=lambda role: dialect.layout[role])) == roles
    assert Dialect.from_json(dialect.to_json()) == dialect


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "log is empty"),
        (" \n\n", {}, "holds no record"),
        ("# only\n% comments\n", {}, "holds no record"),
        ("\x00\x01\x02", {}, "holds binary data"),
        ("\x01\x02\x03abc", {}, "holds binary data"),
        ("1 2\n3 4\n", {}, "two columns, so there is no time"),
        ("source,target,weight\n1,2,5\n", {}, "no column for ts among 'source, target, weight'"),
        ("buyer,seller,amount\n1,2,5\n", {}, "no column for src, dst, ts"),
        # In the letters of the file, and all of them: they are what --columns takes.
        (f"Käufer,{'x' * 90},Verkäufer\n1,2,5\n", {}, f"among 'Käufer, {'x' * 90}, Verkäufer'"),
        (f"a,{'x' * 2000}\n1,2\n", {"columns": {"src": "b"}}, "has no column b"),
        ("buyer seller amount\n1 2 5\n", {}, "no column for src, dst, ts"),
        ("source,target,time\n1,2,3\n", {"columns": {"ts": "when"}}, "no column when"),
        ("1 2 5\n", {"format": "csv"}, "is no log in a known format|no column"),
        ("Once upon a time there was a graph.\n", {}, "no column for|known format"),
        ("1 2 1225229529 1\n", {}, "third looks like the time"),
        ("1 2 3\n", {"columns": {"src": "1", "dst": "2", "ts": "4"}}, "has 3 columns, not columns 1, 2, 4"),
    ],
)
def test_what_cannot_be_told_is_an_error_with_a_fix(text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as failure:
        told(text, **options)
    assert failure.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "unknown format 'xml' of a file"),
        ({"time_unit": "h"}, "unknown time unit 'h'"),
        ({"graph": "No Name"}, "is no graph name"),
        ({"columns": {"source": "a"}}, "'source' is no field of an event"),
        ({"columns": {"src": " "}}, "no name given for 'src'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(DecodeOptions(**options))  # type: ignore[arg-type]


def test_columns_by_number_need_all_three() -> None:
    with pytest.raises(UsageError, match="lack dst, ts"):
        told("1 2 3\n", columns={"src": "1"})


def test_utf16_says_how_to_convert() -> None:
    with pytest.raises(InputError, match="UTF-16"):
        detect("1 2 3\n".encode("utf-16"), label="log", options=DecodeOptions(), whole=True)


def test_a_beginning_that_does_not_tell_yet() -> None:
    for text in ("", "# x\n", "1 2", "src,dst,ts\n", '{"src": 1', "1 2 soon\n"):
        assert told(text, whole=False) is None


def test_columns_by_number_and_by_name() -> None:
    events, _ = read("20 1157 1232\n", columns={"ts": "1", "src": "2", "dst": "3"})
    assert events == [Event("1157", "1232", 20_000_000)]
    events, reader = read(
        "a,b,when,rating\nx,y,2010-11-08T18:45:11Z,4\n",
        columns={"src": "a", "dst": "b", "ts": "when", "weight": "rating"},
    )
    assert events == [Event("x", "y", 1289241911000000, weight=4.0)]
    assert reader.notes == [
        "log: table with a header, separated by commas: src = a, dst = b, ts = when, weight = rating"
    ]
    events, _ = read('{"a": "x", "src": "no", "to": "y", "t": 1}\n', columns={"src": "a"})
    assert events == [Event("x", "y", 1_000_000)]


def test_a_rating_is_no_weight_unless_asked() -> None:
    events, reader = read("from,to,feature,time\n6,2,-4,5\n")
    assert events == [Event("6", "2", 5_000_000)]
    assert "ignored: feature" in reader.notes[0]


def test_a_last_column_that_is_a_list_may_be_longer() -> None:
    events, reader = read("user_id,item_id,timestamp,state_label,features\n1,2,3,0,0.1,0.2\n1,2,4,0,0.1,0.2,0.3\n")
    assert len(events) == 2
    events, reader = read("src,dst,ts\n1,2,3\n1,2,4,5\n")
    assert len(events) == 1
    assert reader.rejects.sample[0].reason == "4 columns instead of 3"


def test_milliseconds_are_detected_and_said() -> None:
    events, reader = read("1 2 1289241911728\n3 4 1289241911729\n5 6 1289241911\n")
    assert [e.ts_us for e in events] == [1289241911728000, 1289241911729000]
    assert any("times are in milliseconds" in note for note in reader.notes)
    assert "--time-unit ms" in reader.rejects.sample[0].reason
    _, reader = read("1 2 1289241911728\n", time_unit="s")
    assert reader.rejects.sample[0].reason.endswith("it looks like milliseconds (use --time-unit ms)")
    assert read("1 2 1289241911728\n", time_unit="ms")[0] == [Event("1", "2", 1289241911728000)]
    events, reader = read("1 2 0\n1 2 36\n")
    assert [e.ts_us for e in events] == [0, 36_000_000]
    assert len(reader.notes) == 1


def test_the_key_that_is_not_null_counts() -> None:
    lines = [
        '{"src": null, "from": "a", "to": "b", "ts": 1.25}',
        '{"source": "c", "target": 7, "createdAt": "1970-01-01T00:00:02Z", "w": 2}',
        '{"src": "e", "from": "x", "dst": "f", "time": "3", "id": 9, "kind": "k", "graph": "g"}',
    ]
    events, reader = read("\n".join(lines))
    assert not reader.rejects.sample
    assert events == [
        Event("a", "b", 1_250_000),
        Event("c", "7", 2_000_000, weight=2.0),
        Event("e", "f", 3_000_000, graph="g", type="k", id="9"),
    ]
