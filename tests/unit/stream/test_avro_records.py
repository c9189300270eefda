"""Avro records as a damaged or hostile producer sends them; the reasons say what is wrong."""

import json
from importlib.util import find_spec
from typing import Any

import pytest

from stream.decoders.records.avro import AvroDecoder
from stream.decoders.records.registry import Schema
from tests.conftest import lacking


@pytest.fixture(autouse=True)
def _fastavro() -> None:
    if find_spec("fastavro") is None:
        lacking("avro", "fastavro, the extra `avro`, is not installed")


def record(name: str, *types: Any) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": each} for number, each in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def decoder(*schemas: Any) -> AvroDecoder:
    """Return a decoder of the last schema, which refers to the others."""
    *referred, last = (Schema("AVRO", json.dumps(each)) for each in schemas)
    return AvroDecoder(Schema(last.kind, last.text, tuple(referred)))


@pytest.mark.parametrize(
    ("schemas", "level"),
    [
        ([record("Post", ["null", "Post"])], b"\x02"),
        ([record("Post", {"type": "array", "items": record("Reply", ["null", "Post"])})], b"\x02\x02"),
        ([record("Tree", {"type": "map", "values": "Tree"}), record("Post", "Tree")], b"\x02\x00"),
    ],
)
def test_a_record_that_is_nested_without_end_costs_itself_and_not_the_process(schemas: list[Any], level: bytes) -> None:
    read = decoder(*schemas)
    with pytest.raises(ValueError, match="no valid Avro: nested too deeply"):
        read.decode(level * 100_000)
    assert read.decode(b"\0") in ({"f0": None}, {"f0": []}, {"f0": {"f0": {}}})


@pytest.mark.parametrize(
    ("type_", "payload"),
    [("string", b"\x08ab"), ("long", b""), ("long", b"\xff"), ({"type": "array", "items": "int"}, b"\x04\x02")],
)
def test_a_record_that_is_cut_off_says_so(type_: Any, payload: bytes) -> None:
    with pytest.raises(ValueError, match="no valid Avro: the payload ends before the record does"):
        decoder(record("Event", type_)).decode(payload)


def test_a_branch_that_there_is_not_is_no_record_that_is_cut_off() -> None:
    with pytest.raises(ValueError, match="out of range"):
        decoder(record("Event", ["null", "string"])).decode(b"\x12\x02a")
