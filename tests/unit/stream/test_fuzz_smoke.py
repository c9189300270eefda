"""A short run of the fuzzing without atheris: mutated samples of every format, of records and of files."""

import random
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import lacking
from tests.fuzz.invariants import FILE_FORMATS, FORMATS, as_bytes, check_file, check_records, decoder, records_of
from tests.fuzz.samples import samples

SPLICED = [b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"null", b"1e999", b"\xff", b"\x00", b"\n", b"\x1e", b"-1"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few of them changed, cut, doubled or spliced."""
    text = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.randint(0, 8))
        what = chance.randrange(5)
        if what == 0:
            text[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        elif what == 1:
            text[at:at] = chance.choice(SPLICED)
        elif what == 2:
            del text[at:end]
        elif what == 3:
            text[at:at] = text[end : end + chance.randint(0, 64)]
        else:
            del text[at:]
    return bytes(text)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_mutated_records_become_events_or_reasons_whatever_stands_beside_them(name: str, seed: int) -> None:
    if name == "avro" and find_spec("fastavro") is None:
        lacking("avro", "fastavro, the extra `avro`, is not installed")
    chance = random.Random(seed)
    corpus = [as_bytes(record) for record in samples(name)]
    used = decoder(name)
    for _ in range(15):
        records = [record for _ in range(3) for record in records_of(mutated(chance.choice(corpus), chance))]
        check_records(records, name, used)


@pytest.mark.parametrize("name", FILE_FORMATS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_mutated_files_become_events_or_an_error(name: str, seed: int) -> None:
    chance = random.Random(seed)
    corpus = [record.value or b"" for record in samples("ndjson") + samples("json")]
    corpus += [b"src,dst,ts\na,b,1\nc,d,2\n", b"a b 1\nc d 2\n"]
    for _ in range(15):
        check_file(mutated(chance.choice(corpus), chance), name)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "avro"])
def test_samples_give_events(name: str) -> None:
    decoded = decoder(name).decode(samples(name))
    assert len(decoded.events) > 0
