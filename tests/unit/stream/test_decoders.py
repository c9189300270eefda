"""Decoders: what is cut where does not matter, whole blocks and single rows agree, a bad record costs itself only."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.errors import GraphtideError, InputError
from stream.decoders.base import Decoder, RawColumns
from stream.decoders.builder import DecodeOptions, EventBuilder, RejectLog
from stream.decoders.dialect import Dialect
from stream.decoders.log import LogReader
from stream.decoders.times import TimeReader
from stream.events import Event, EventRules, Interner

LAYOUT = {"src": 0, "dst": 1, "ts": 2}
DIALECTS = {
    "edges": Dialect(format="edgelist", layout=LAYOUT, width=3),
    "edges-tab": Dialect(format="edgelist", layout=LAYOUT, width=3, delimiter="\t"),
    "csv": Dialect(format="delimited", layout=LAYOUT, width=3, delimiter=","),
    "csv-ragged": Dialect(format="delimited", layout=LAYOUT, width=3, delimiter=",", ragged=True, skip_lines=1),
    "ndjson": Dialect(format="ndjson"),
    "json": Dialect(format="json"),
}
_records = ["a,b,1\n", "a b 1\n", "a\tb\t2\n", '"a\nb",c,3\n', '{"src":"a","dst":1,"ts":2}\n']
_pieces = st.sampled_from([*_records, *'{}[]"\\,:#%-. \t\n\ra1é\ufeff\x00\x1c', '""', "\r\n"])
logs = st.lists(_pieces, max_size=25).map(lambda parts: "".join(parts).encode())


def outcome(decoder: Decoder, pieces: Sequence[bytes]) -> tuple[Any, ...]:
    """Return all rows and bad records with their lines, in order, and whether the end was an error."""
    raws: list[RawColumns] = []
    error = ""
    try:
        for piece in pieces:
            raws += decoder.feed(piece)
        raws += decoder.finish()
    except InputError as failure:
        error = str(failure)
    rows = [
        (raw.lines[row], raw.text(row), {role: _stripped(values[row]) for role, values in raw.columns.items()})
        for raw in raws
        for row in range(len(raw.lines))
    ]
    bad = sorted((record.line, record.text, record.reason) for raw in raws for record in raw.bad)
    return rows, bad, error


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def read(data: bytes, **options: Any) -> tuple[list[Event], LogReader]:
    reader = LogReader("log", EventBuilder(Interner(), DecodeOptions(**options)))
    batches = reader.feed(data) + reader.finish()
    return [event for batch in batches for event in batch], reader


@pytest.mark.parametrize("name", DIALECTS)
@given(data=logs, size=st.integers(1, 64))
@example(data=b'a,b,1\n"c\nd",e,2\n"f\ng', size=3)
@example(data=b'[{"src":"a","dst":"b","ts":1}, "x", 5, {"src":"]"}]', size=1)
@example(data=b'a,"b,1\n' + b"a,b,1\n" * 12 + b'c","d,2\n', size=20)
@example(data=b'a,"b,1\n' + b"a,b,1\n" * 12 + b'c",2\n', size=20)
@example(data=b'a,"b,1\n' + b"a,b,1\n" * 9 + b'c",2\na,"b,1\n' + b"a,b,1\n" * 9, size=7)
def test_where_a_log_is_cut_does_not_matter(name: str, data: bytes, size: int) -> None:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    dialect = DIALECTS[name]
    whole, cut = dialect.decoder("log"), dialect.decoder("log")
    assert outcome(cut, pieces) == outcome(whole, [data])
    assert cut.next_line == whole.next_line


@pytest.mark.parametrize("format_", ["auto", "ndjson", "json", "csv", "tsv", "edgelist"])
@given(data=st.one_of(st.binary(max_size=200), logs), strict=st.booleans())
def test_arbitrary_bytes_end_in_events_or_in_an_error_for_the_user(format_: str, data: bytes, strict: bool) -> None:
    try:
        events, reader = read(data, format=format_, strict=strict)
    except GraphtideError:
        return
    assert all(EventRules().event(event) == event for event in events)
    for reject in reader.rejects.sample:
        assert reject.reason
        assert reject.place.startswith("log:")
        reject.record.encode()


_raw_text = st.sampled_from(
    ["a", " b ", "", " ", "7", "7.5", "-1", "nan", "1e400", "x\x00", "\udcff", "G", "1_0", "2001-01-01"]
)
_raw_json = st.one_of(_raw_text, st.none(), st.booleans(), st.integers(-5, 10**20), st.just([1]), st.just({"a": 1}))
ROLES = ("src", "dst", "ts", "weight", "type", "graph", "id")


@given(data=st.data(), typed=st.booleans(), optional=st.sets(st.sampled_from(ROLES[3:])))
def test_columns_and_single_rows_agree(data: st.DataObject, typed: bool, optional: set[str]) -> None:
    n = data.draw(st.integers(0, 3))
    values = _raw_json if typed else _raw_text
    columns = {
        role: data.draw(st.lists(values, min_size=n, max_size=n))
        for role in ROLES
        if role in optional or role in LAYOUT
    }
    raw = RawColumns(lines=range(1, n + 1), columns=columns, text=lambda row: f"row {row}", typed=typed)

    def built(raws: list[RawColumns]) -> tuple[list[Event], list[Any]]:
        builder, log = EventBuilder(Interner(), DecodeOptions()), RejectLog("log", limit=10, strict=False)
        times = TimeReader("s", EventRules())
        events = [event for one in raws for event in builder.build(one, times, log)]
        assert log.count == len(log.sample)
        return events, log.sample

    singles = [
        RawColumns(
            lines=[row + 1],
            columns={role: [column[row]] for role, column in columns.items()},
            text=lambda _, row=row: f"row {row}",
            typed=typed,
        )
        for row in range(n)
    ]
    # A good row behind a bad one forces the way by rows; alone it goes the way by columns.
    assert built([raw]) == built(singles)


def test_a_bad_row_costs_itself_only_and_says_where_and_why() -> None:
    lines = [
        "# comment",
        "1 2 100",
        "1 2 yesterday",
        "",
        "3 4 -5",
        "5 6 1.5",
        "7 8",
        "1 2 99999999999999999999",
        "9 9 7",
    ]
    events, reader = read("\n".join(lines).encode())
    assert [(e.src, e.dst, e.ts_us) for e in events] == [
        ("1", "2", 100_000_000),
        ("5", "6", 1_500_000),
        ("9", "9", 7_000_000),
    ]
    assert [(r.place, r.record) for r in reader.rejects.sample] == [
        ("log:3", "1 2 yesterday"), ("log:5", "3 4 -5"), ("log:7", "7 8"), ("log:8", "1 2 99999999999999999999"),
    ]  # fmt: skip
    reasons = [r.reason for r in reader.rejects.sample]
    assert "neither a number nor ISO 8601" in reasons[0]
    assert reasons[1] == "time -5 is negative"
    assert reasons[2] == "2 columns instead of 3"
    assert "lies after 2200" in reasons[3]


def test_strict_stops_at_the_first_bad_record() -> None:
    with pytest.raises(InputError, match="weight nan is not finite") as failure:
        read(b"1 2 1 100\n1 2 nan 100\n1 2 x 100\n", strict=True)
    assert failure.value.place == "log:2"
    assert "1 2 nan 100" in str(failure.value.fix)


def test_all_rejects_are_counted_and_the_first_kept() -> None:
    data = b"1 2 5\n" + b"1 2 x\n" * 50
    _, reader = read(data, reject_sample=7)
    assert reader.rejects.count == 50
    assert [reject.place for reject in reader.rejects.sample] == [f"log:{line}" for line in range(2, 9)]
    long = f'{{"src":"a","dst":"b","ts":"{"x" * 500}"}}\n'
    _, reader = read(long.encode())
    assert len(reader.rejects.sample[0].record) == 200


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"src": "a", "dst": "b"', "no valid JSON"),
        ('{"src": "a", "dst": "b", "ts": 1, "weight": NaN}', "no valid JSON"),
        ('{"src": "a", "dst": "b", "ts": 1, "weight": "nan"}', "weight nan is not finite"),
        ('{"src": "a", "dst": "b", "ts": 1, "weight": 1e999}', "weight inf is not finite"),
        ('{"src": "a", "dst": "b", "ts": 1, "weight": true}', "weight True is no number"),
        ('{"dst": "b", "ts": 1}', "src is missing"),
        ('{"src": "a", "dst": null, "ts": 1}', "dst is missing"),
        ('{"src": "a", "dst": "b"}', "ts is missing"),
        ('{"src": 1.5, "dst": "b", "ts": 1}', "src Decimal"),
        ('{"src": true, "dst": "b", "ts": 1}', "src True is neither text nor a whole number"),
        ('{"src": {"id": 1}, "dst": "b", "ts": 1}', "neither text nor a whole number"),
        ('{"src": "a", "dst": "b", "ts": 1, "graph": "No Name"}', "is no graph name"),
        ('{"src": "a", "dst": "b", "ts": 1, "type": "' + "t" * 65 + '"}', "type has 65 characters"),
        ('[{"src": "a", "dst": "b", "ts": 1}]', "but no object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"src": "\xff", "dst": "b", "ts": 1}', "not UTF-8"),
    ],
)
def test_bad_json_lines(line: str, reason: str) -> None:
    good = '{"src": 1, "dst": "b", "ts": 1}\n'
    events, reader = read((good + line + "\n" + good).encode("latin-1"), format="ndjson")
    assert len(events) == 2
    assert [reject.place for reject in reader.rejects.sample] == ["log:2"]
    assert reason in reader.rejects.sample[0].reason


def test_a_number_and_its_text_are_one_node_and_true_is_none() -> None:
    lines = ['{"src": 1, "dst": "1", "ts": 1}', '{"src": true, "dst": 1, "ts": 1}']
    events, reader = read("\n".join(lines).encode())
    assert [(e.src, e.dst) for e in events] == [("1", "1")]
    assert reader.rejects.count == 1


def test_a_broken_quote_costs_one_line() -> None:
    data = b'src,dst,ts\na,b,1\n"a,b,2\nc,d,3\ne,"f""g",4\n"h"x,i,5\n"j\nk",l,6\n'
    events, reader = read(data)
    assert [(e.src, e.dst) for e in events] == [("a", "b"), ("c", "d"), ("e", 'f"g')]
    assert [r.place for r in reader.rejects.sample] == ["log:3", "log:6", "log:7"]
    assert "control character" in reader.rejects.sample[2].reason


def test_a_quote_that_is_never_closed_costs_one_line_and_a_long_text_nothing() -> None:
    records = b"".join(b"c,d,%d\n" % ts for ts in range(50))
    events, reader = read(b'src,dst,ts\na,"b,1\n' + records + b'e,"f",9\n')
    assert (len(events), reader.rejects.count) == (51, 1)
    assert reader.rejects.sample[0].place == "log:2"
    assert reader.rejects.sample[0].reason == "broken quoting: the quote is not closed"
    text = "Dear Bob, dear Eve,\nthis, as ever, is no record.\n" * 200
    events, reader = read(f'src,dst,ts,body\na,b,1,"{text}"\nc,d,2,\n'.encode())
    assert (len(events), reader.rejects.count) == (2, 0)


def test_an_unclosed_json_document_is_an_error() -> None:
    for cut in ('[{"src":"a","dst":"b","ts":1},', '[{"src":"a","dst":"b","ts":1}, {"src":'):
        with pytest.raises(InputError, match="the JSON ends inside"):
            read(cut.encode())


def test_values_between_json_objects_are_rejected() -> None:
    events, reader = read(b'[{"src":"a","dst":"b","ts":1},\n7, "x",\n[1], null,\n{"src":"a","dst":"b","ts":2}]\n')
    assert len(events) == 2
    assert [(r.place, r.record) for r in reader.rejects.sample] == [
        ("log:2", "7"), ("log:2", '"x"'), ("log:3", "[1]"), ("log:3", "null"),
    ]  # fmt: skip


def test_endless_lines_are_refused() -> None:
    for dialect in DIALECTS.values():
        decoder = dialect.decoder("log")
        with pytest.raises(InputError, match="of more than 8 MiB"):
            for _ in range(20):
                decoder.feed(b'{"' + b"x" * (1 << 20))


def test_bipartite_keeps_the_two_id_spaces_apart() -> None:
    data = b"u,i,ts,label\n0,0,0,0\n1,0,36,0\n"
    events, reader = read(data, bipartite=True)
    assert [(e.src, e.dst) for e in events] == [("u:0", "i:0"), ("u:1", "i:0")]
    assert reader.dialect is not None
    assert reader.dialect.bipartite_hint
    assert [(e.src, e.dst) for e in read(data)[0]] == [("0", "0"), ("1", "0")]
