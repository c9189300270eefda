"""Objects that are all written alike are read in bulk: what comes of them is what parsing each would give."""

import json
from datetime import datetime
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decoders.builder import DecodeOptions
from stream.decoders.iso import iso_column_us
from stream.decoders.records.base import Decoded, Record
from stream.decoders.records.formats import record_decoder
from stream.decoders.template import ObjectTemplate, TemplateReader
from stream.decoders.text import TextColumn, TextIndex
from stream.events import Interner

NAMES = st.one_of(
    st.sampled_from(["ada", "bob", "", " ada", "b b", "0", "a" * 70, "u" * 64, "é", "日本語", "\x7f", "\x85", "null"]),
    st.text(alphabet="abz09é_", max_size=18),
    st.text(max_size=6),
)
WHOLE = st.one_of(st.integers(0, 99), st.integers(0, 2**63 + 5), st.sampled_from([10**8, 10**16, 2**63 - 1, 2**63]))
TIMES = st.one_of(
    st.datetimes(datetime(1969, 1, 1), datetime(2201, 1, 1)).map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes(datetime(2020, 1, 1), datetime(2021, 1, 1)).map(
        lambda moment: moment.isoformat(timespec="milliseconds") + "Z"
    ),
    st.integers(1_700_000_000_000, 1_700_000_100_000),
    st.sampled_from(["2024-02-30T00:00:00.000Z", "2024-02-29T00:00:00.000Z", "1767225600", 0, "", "12"]),
    WHOLE,
)
KEYS = st.sampled_from(
    [
        {"src": NAMES, "dst": NAMES, "ts": TIMES},
        {"type": st.sampled_from(["like", "", "a" * 65]), "src": NAMES, "dst": NAMES, "ts": TIMES},
        {"ts": TIMES, "source": WHOLE, "src": NAMES, "target": NAMES, "weight": WHOLE, "graph": st.sampled_from("gGh")},
        {"id": st.one_of(NAMES, WHOLE), "from": NAMES, "to": WHOLE, "time": TIMES, "other": NAMES},
        {"src": NAMES, "ts": TIMES},
        {"specversion": NAMES, "id": NAMES, "source": NAMES, "type": NAMES, "src": NAMES, "dst": NAMES, "ts": TIMES},
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> list[bytes]:
    """Return JSON lines that are written alike, but for some that are not."""
    keys = draw(KEYS)
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,  ", " : ")]))
    # Values of one kind each, as producers write them.
    of_key = {
        key: draw(st.lists(values, min_size=1, max_size=4).map(lambda some: st.sampled_from(_of_one_kind(some))))
        for key, values in keys.items()
    }
    found = []
    for _ in range(draw(st.integers(1, 8))):
        fields = {key: draw(of_key[key]) for key in keys}
        text = json.dumps(fields, separators=separators, ensure_ascii=draw(st.integers(0, 9)) == 0)
        found.append(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(found) - 1))
        cut = draw(st.integers(0, len(found[at])))
        end = draw(st.integers(cut, min(len(found[at]), cut + 2)))
        spliced = draw(st.sampled_from([b"", b'"', b"\\n", b"\n", b"-", b"0", b" ", b"\t", b"{", b"}", b"\xff", b","]))
        found[at] = found[at][:cut] + spliced + found[at][end:]
    return found


def _of_one_kind(values: list[object]) -> list[object]:
    return [value for value in values if type(value) is type(values[0])]


def decode(payloads: list[list[bytes]], name: str) -> tuple[Decoded, Decoded]:
    """Decode payloads, batch after batch, with all means and by parsing each object; return the last batch of both."""
    found = []
    for by_parsing in (False, True):
        decoder = record_decoder(DecodeOptions(format=name), interner=Interner())
        with patch.object(TemplateReader, "read", return_value=None) if by_parsing else patch.dict({}):
            for values in payloads:
                decoded = decoder.decode([Record(value) for value in values])
            found.append(decoded)
    return found[0], found[1]


def assert_equal(one: Decoded, other: Decoded) -> None:
    assert one.events.interner.names == other.events.interner.names
    for column in ("graph", "type", "src", "dst", "ts_us", "weight"):
        np.testing.assert_array_equal(getattr(one.events, column), getattr(other.events, column), err_msg=column)
        assert getattr(one.events, column).dtype == getattr(other.events, column).dtype
    # A decoder that knows of ids from other records may give nothing for each event, or nothing for all.
    assert (one.events.ids or [None] * len(one.events)) == (other.events.ids or [None] * len(other.events))
    np.testing.assert_array_equal(one.record, other.record)
    assert one.bad == other.bad
    assert one.skipped == other.skipped


@pytest.mark.parametrize("name", ["auto", "json", "ndjson"])
@given(batches=st.lists(lines(), min_size=1, max_size=3))
def test_single_objects_become_what_parsing_makes_of_them(name, batches):
    assert_equal(*decode(batches, name))


@pytest.mark.parametrize("name", ["auto", "json", "ndjson"])
@given(batch=st.lists(lines(), min_size=1, max_size=3), ends=st.lists(st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"])))
def test_lines_become_what_parsing_makes_of_them(name, batch, ends):
    payloads = [b"\n".join(lines) + (ends[at % len(ends)] if ends else b"") for at, lines in enumerate(batch)]
    assert_equal(*decode([payloads], name))


def test_alike_objects_are_not_parsed():
    reader = TemplateReader({})
    texts = [
        b'{"type": "like", "src": "u%d", "dst": "b", "ts": "2026-01-01T00:00:0%d.5Z", "n": %d}' % (at, at, 10**at)
        for at in range(9)
    ]
    found = reader.read(texts)
    assert found is not None
    columns, owner = found
    assert owner.tolist() == list(range(9))
    assert list(columns["src"]) == [f"u{at}" for at in range(9)]
    found = reader.read([b"\n".join(texts[:4]) + b"\n", b"\n".join(texts[4:]) + b"\n"])
    assert found is not None
    assert found[1].tolist() == [0] * 4 + [1] * 5
    # Another way to write them is learned from the first object.
    assert reader.read([text.replace(b" ", b"") for text in texts]) is not None
    assert reader.keys == ("type", "src", "dst", "ts", "n")


def test_where_texts_are_hardly_ever_alike_fewer_are_tried():
    reader = TemplateReader({})
    alike, unlike = [b'{"src":"a"}', b'{"src":"b"}'], [b'{"src":"a"}', b'{"dst":"b"}']
    for _ in range(3):
        assert reader.read(unlike) is None
    assert reader.read(alike) is not None
    for _ in range(4):
        assert reader.read(unlike) is None
    assert reader.read(alike) is None
    assert reader.read(alike) is not None
    assert reader.read(alike) is not None


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1.5}', b'{"a":-1}', b'{"a":null}', b'{"a":[]}', b'{"a":{"b":1}}', b'{"a":"\\u0041"}', b'{"a":01}',
        b'{"a":1,"a":2}', b"{}", b"[1]", b'"a"', b"", b'{"a":1', b'{"a":1}}', b',"a":1}', b'{"a":"x"\t}', b'{"\xff":1}',
    ],
)  # fmt: skip
def test_other_objects_have_no_template(text):
    assert ObjectTemplate.of(text) is None


def column_of(texts: list[bytes]) -> TextColumn:
    length = np.array([len(text) for text in texts], dtype=np.int64)
    return TextColumn(b"".join(texts), np.cumsum(length) - length, length)


@given(st.lists(st.one_of(WHOLE.map(str), st.text(alphabet="0123456789:/", max_size=21)), max_size=6))
def test_whole_numbers_are_what_int_reads(texts):
    plain = all(text.isdigit() and (text == "0" or text[0] != "0") and int(text) < 2**63 for text in texts)
    numbers = column_of([text.encode() for text in texts]).whole_numbers()
    assert (None if numbers is None else numbers.tolist()) == ([int(text) for text in texts] if plain else None)


@given(
    st.lists(st.lists(st.text(alphabet="ab\x01é", max_size=20), min_size=1, max_size=30), max_size=5), st.integers(0, 9)
)
def test_an_index_gives_each_text_its_value_whatever_it_has_forgotten(batches, limit):
    codes: dict[str, int] = {}

    def values_of(texts):
        assert len(set(texts)) == len(texts)
        return [codes.setdefault(text, len(codes)) for text in texts]

    index = TextIndex(values_of, limit=limit)
    for texts in batches:
        found = index.values(column_of([text.encode() for text in texts])).tolist()
        assert found == [codes[text] for text in texts]
    assert list(codes) == list(dict.fromkeys(text for texts in batches for text in texts))


def test_an_index_grows_and_asks_for_each_text_once():
    asked: list[str] = []

    def values_of(texts):
        asked.extend(texts)
        return list(map(int, texts))

    index = TextIndex(values_of)
    numbers = np.random.default_rng(0).integers(0, 20_000, 60_000)
    for part in np.split(numbers, 30):
        np.testing.assert_array_equal(index.values(column_of([b"%d" % number for number in part.tolist()])), part)
    assert len(asked) == len(set(asked)) == len(np.unique(numbers))


@given(
    st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), min_size=1, max_size=5),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from(["", "Z", "+00:00"]),
    st.tuples(st.integers(0, 31), st.characters(min_codepoint=32, max_codepoint=126)),
)
def test_iso_columns_of_texts_in_a_buffer_are_those_of_strings(moments, timespec, ending, splice):
    texts = [moment.isoformat(timespec=timespec) + ending for moment in moments]
    at, char = splice
    for changed in (texts, [texts[0][:at] + char + texts[0][at + 1 :], *texts[1:]]):
        in_buffer = column_of([text.encode() for text in changed]).iso_us()
        of_strings = iso_column_us(changed)
        if in_buffer is None:
            assert of_strings is None
            continue
        if of_strings is not None:
            np.testing.assert_array_equal(in_buffer, of_strings)
        exact = [datetime.fromisoformat(text).replace(tzinfo=None) - datetime(1970, 1, 1) for text in changed]
        expected = [(each.days * 86_400 + each.seconds) * 1_000_000 + each.microseconds for each in exact]
        assert in_buffer.tolist() == expected


def test_texts_are_the_bytes_between():
    column = column_of([b"ab", "é".encode(), b"", b"x" * 64])
    assert list(column) == ["ab", "é", "", "x" * 64]
    assert (column[1], len(column)) == ("é", 4)
    assert all(a <= b for a, b in pairwise(column.begin.tolist()))
