"""What `docs/producers.md` shows is what the decoders read."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.settings import FormatSettings
from stream.decoders.base import ALIASES, squeezed
from stream.decoders.builder import DecodeOptions
from stream.decoders.records.base import Record
from stream.decoders.records.formats import RECORD_FORMATS, record_decoder
from stream.events import EventRules, Interner

PAGE = (Path(__file__).parents[3] / "docs" / "producers.md").read_text(encoding="utf-8")
OWN = {
    name: FormatSettings(**fields)
    for text in re.findall(r"^```toml own-format\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for name, fields in tomllib.loads(text)["formats"].items()
}


@dataclass(frozen=True)
class Example:
    language: str
    format: str
    events: int
    text: str


EXAMPLES = [
    Example(language, name, int(events), text)
    for language, name, events, text in re.findall(
        r"^```(\w+) format=(\w+) events=(\d+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
    )
]
REFUSED = re.findall(r"^\| `(\{.*)` \| (.+) \|$", PAGE, re.MULTILINE)


def record_of(example: Example) -> Record:
    if example.language != "python":
        return Record(example.text.encode())
    names: dict[str, Any] = {}
    exec(example.text, names)
    return Record(names["value"], headers=tuple(names["headers"]))


def decode(record: Record, name: str) -> Any:
    return record_decoder(DecodeOptions(format=name), interner=Interner(), own_formats=OWN).decode([record])


def test_the_page_has_examples_of_all_formats_that_it_explains() -> None:
    assert len(EXAMPLES) == len(re.findall(r"^```\w+ format=", PAGE, re.MULTILINE)) == 9
    assert len(REFUSED) == 7
    assert list(OWN) == ["orders"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.language}-{example.format}")
def test_examples_are_events(example: Example) -> None:
    decoded = decode(record_of(example), example.format)
    assert decoded.bad == []
    assert len(decoded.events) == example.events
    for event in decoded.events:
        assert event.ts_us // 10_000_000 == 1_767_268_800 // 10
        assert event.src != event.dst


def test_cloud_events_take_type_time_and_id_from_their_attributes() -> None:
    found = [e for e in EXAMPLES if "specversion" in e.text]
    assert len(found) == 2
    for example in found:
        [event] = decode(record_of(example), "auto").events
        assert (event.type, event.id) == ("reply", "/forum/replies 81")


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_bad_records_are_refused_for_the_reason_that_the_page_gives(text: str, reason: str) -> None:
    decoded = decode(Record(text.encode()), "auto")
    assert len(decoded.events) == 0
    assert [reason in bad.reason for bad in decoded.bad] == [True]


def test_what_the_page_says_of_names_and_bounds_is_so() -> None:
    said = re.search(r"fields \((.*?)\)", PAGE, re.DOTALL)
    assert said is not None
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    assert {squeezed(name) for name in re.findall(r"`(\w+)`", said[1])} <= known
    rules = EventRules()
    assert f"up to {rules.max_name_chars} characters" in PAGE
    assert f"up to {rules.max_type_chars} characters" in PAGE
    named = re.findall(r"`(\w+)`", PAGE.partition("## Formats")[2].partition("### JSON")[0])
    assert set(named) <= set(RECORD_FORMATS)
