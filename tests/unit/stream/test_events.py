"""What makes an event valid."""

from dataclasses import replace

import pytest

from stream.events import Event, EventBatch, EventRules, Interner, InvalidEventError

RULES = EventRules()
GOOD = Event(src="a", dst="b", ts_us=0)


def test_a_valid_event_is_returned_with_its_names_stripped() -> None:
    event = Event(src=" a b ", dst="\tü", ts_us=5, graph=" g.0_x-y ", type=" reply ", weight=-2.5, id=" 7 ")
    assert RULES.event(event) == Event("a b", "ü", 5, "g.0_x-y", "reply", -2.5, "7")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"src": "  "}, "src is empty"),
        ({"dst": ""}, "dst is empty"),
        ({"src": "a\x00b"}, "control character"),
        ({"dst": "a\x85b"}, "control character"),
        ({"dst": "a\nb"}, "control character"),
        ({"src": "a\udcffb"}, "not UTF-8"),
        ({"src": "x" * 513}, "513 characters, more than 512"),
        ({"type": "x" * 65}, "65 characters, more than 64"),
        ({"type": "a\x1bb"}, "control character"),
        ({"graph": ""}, "no graph name"),
        ({"graph": "Upper"}, "no graph name"),
        ({"graph": "-a"}, "no graph name"),
        ({"graph": "a" * 65}, "no graph name"),
        ({"graph": "a:b"}, "no graph name"),
        ({"ts_us": -1}, "is negative"),
        ({"ts_us": RULES.max_ts_us + 1}, "lies after 2200-01-01T00:00:00Z"),
        ({"weight": float("nan")}, "weight nan is not finite"),
        ({"weight": float("-inf")}, "weight -inf is not finite"),
        ({"id": " "}, "id is empty"),
    ],
)
def test_each_invalid_field_is_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        RULES.event(replace(GOOD, **change))  # type: ignore[arg-type]


def test_limits_are_inclusive_and_can_be_set() -> None:
    edge = replace(GOOD, src="x" * 512, type="y" * 64, graph="a" * 64, ts_us=RULES.max_ts_us)
    assert RULES.event(edge) == edge
    narrow = EventRules(min_ts_us=10, max_ts_us=20, max_name_chars=1)
    assert narrow.event(replace(GOOD, ts_us=10)).ts_us == 10
    with pytest.raises(InvalidEventError, match="lies before 1970-01-01T00:00:00"):
        narrow.event(replace(GOOD, ts_us=9))
    with pytest.raises(InvalidEventError, match="more than 1"):
        narrow.event(replace(GOOD, ts_us=10, src="ab"))


def test_a_batch_gives_its_events_back() -> None:
    events = [GOOD, Event("b", "b", 7, "g", "t", 2.0, "id1")]
    assert list(EventBatch.from_events(events, Interner())) == events
    assert list(EventBatch.from_events([], Interner())) == []
