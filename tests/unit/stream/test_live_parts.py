"""What live sources are made of, one by one: names and addresses, waits, the cutting of events, what is remembered."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.errors import InputError, UsageError
from infra.settings import LiveSettings
from stream.decoders.builder import DecodeOptions
from stream.sources.live import LIVE_SOURCES, open_live
from stream.sources.live.connection import Address, DroppedError, Limits, Message, refusal, retry_after_s
from stream.sources.live.events import EventParser
from stream.sources.live.feed import Backoff
from stream.sources.live.recent import Recent
from stream.sources.live.sse import SseConnection
from stream.sources.live.wikimedia import WikimediaTrack
from tests.unit.stream.live_cases import (
    QUICK,
    Stage,
    live,
    mastodon_script,
    sse_server,
    wikimedia_script,
)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_cut_in_any_pieces(end: bytes, size: int) -> None:
    lines = [
        *(b"\xef\xbb\xbf:hello", b"", b"id: 1", b"data: a", b"data:b", b"", b": beat", b"", b"retry: 250", b""),
        *(b"event: big", b"id: 2", b"data: " + b"x" * 90, b"data: y", b"id: 3", b""),
        *(
            b"data: " + b"x" * 50,
            b"data: " + b"x" * 49,
            b"",
            b"data: " + b"x" * 50,
            b"data: " + b"x" * 50,
            b"",
            b"data",
        ),
    ]
    text = b"".join(line + end for line in lines)
    parser = EventParser(100)
    found = [each for at in range(0, len(text), size) for each in parser.feed(text[at : at + size])]
    assert [(each.value, each.event, each.id, each.retry_s) for each in found[:3]] == [
        (b"a\nb", "", "1", None),
        (None, "", "1", None),
        (None, "", "1", 0.25),
    ]
    assert found[3] == Message(b"x" * 90 + b"\ny", event="big", id="3")
    assert found[4] == Message(b"x" * 50 + b"\n" + b"x" * 49, id="3")
    assert found[5:] == [Message(id="3", too_long=b"x" * 50 + b"\n" + b"x" * 50)]


def test_a_line_without_an_end_takes_no_more_memory_than_an_event_may() -> None:
    parser = EventParser(10_000)
    for block in (b"id: 7\n:", b"data: "):
        assert list(parser.feed(block)) == []
        for _ in range(1000):
            assert list(parser.feed(b"x" * 10_000)) == []
        assert len(parser._line) < 20_000
        assert list(parser.feed(b"\n")) == []
    assert list(parser.feed(b"id: 8\n\ndata: y\n\n")) == [
        Message(id="8", too_long=b"x" * 800),
        Message(b"y", id="8"),
    ]


def test_positions_of_another_source_are_refused() -> None:
    for name in LIVE_SOURCES:
        scheme = "ws" if name == "jetstream" else "http"
        source = live(name, f"{scheme}://127.0.0.1:1/")
        for position in ({"row": 3}, {"number": 3}, {"number": 1, "time_us": "x", "last_at_us": "x"}):
            with pytest.raises(InputError, match="cannot be resumed"):
                list(source.batches(position))  # type: ignore[arg-type]


def test_the_token_of_mastodon_comes_from_file_or_environment_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    settings = QUICK.model_copy(update={"mastodon_token_file": str(file)})
    cases: list[tuple[LiveSettings, Mapping[str, str], str | None]] = [
        (settings, {"GRAPHTIDE_MASTODON_TOKEN": "other"}, "Bearer from-file"),
        (QUICK, {"GRAPHTIDE_MASTODON_TOKEN": "from-env"}, "Bearer from-env"),
        (QUICK, {}, None),
    ]
    for given, environment, expected in cases:
        stage = Stage(mastodon_script(5, 1), refusals=[(401, {})])
        with sse_server(stage, resumes=False) as url, pytest.raises(InputError) as raised:
            source = open_live("mastodon", given, url=url, environment=environment)
            list(source.batches(None))
        assert stage.requests[0].get("authorization") == expected
        assert "from-" not in f"{raised.value}{source.name}"
    with pytest.raises(InputError, match="cannot be read from"):
        open_live("mastodon", QUICK.model_copy(update={"mastodon_token_file": str(tmp_path / "no")}))
    with pytest.raises(InputError, match="holds no access token"):
        open_live("mastodon", QUICK, environment={"GRAPHTIDE_MASTODON_TOKEN": "two words"})


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "https://", "https://user:pw@host/", "https://host/?access_token=abc", "http://[::1", "x"]
)
def test_wrong_addresses_are_told_without_their_secrets(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_live("mastodon", QUICK, url=url, environment={})
    assert "pw" not in str(raised.value)
    assert "abc" not in str(raised.value)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(UsageError, match="unknown live source 'x'"):
        open_live("x", QUICK)


def test_options_are_part_of_the_name() -> None:
    plain, named = (open_live("wikimedia", LiveSettings(), DecodeOptions(graph=g)) for g in ("default", "wiki"))
    assert plain.name == "wikimedia:https://stream.wikimedia.org/v2/stream/recentchange#format=wikimedia"
    assert named.name != plain.name


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    cases = {"120": 120.0, " 7 ": 7.0, "9" * 30: 86_400.0, "Thu, 01 Jan 2026 00:00:30 GMT": 30.0, "soon": None}
    cases |= {"Thu, 01 Jan 2025 00:00:30 GMT": 0.0, "-3": None, "": None}
    assert {text: retry_after_s(text, now=now) for text in cases} == cases
    error = refusal(429, {"retry-after": "9"}, "https://h/x?secret=1")
    assert isinstance(error, DroppedError)
    assert error.retry_after_s == 9.0
    assert "secret" not in str(error)


def test_waits_double_on_average_between_their_bounds() -> None:
    backoff = Backoff(min_s=1.0, max_s=16.0)
    for attempt, most in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 16.0), (50, 16.0)):
        waits = [backoff.wait_s(attempt) for _ in range(300)]
        assert 0.5 <= min(waits) <= max(waits) <= most
        assert max(waits) > most * 0.8
    assert Backoff(min_s=5.0, max_s=1.0).wait_s(3) <= 1.0


def test_recent_identities_survive_as_text() -> None:
    recent = Recent(3)
    assert [recent.add((name,), at) for at, name in enumerate([b"a", b"b", b"a", b"c", b"d"])] == [1, 1, 0, 1, 1]
    assert recent.forgotten_us == 0
    again = Recent(3, recent.text(), 9)
    assert [again.add((name,), 10) for name in (b"b", b"c", b"d")] == [False] * 3
    assert again.add((b"a",), 10)
    assert again.forgotten_us == 9
    assert Recent(2).add((b"a", b"b")) and not Recent(2, recent.text()).add((b"d",))
    with pytest.raises(ValueError, match="whole number of digests"):
        Recent(3, "YWJj")


def test_wikimedia_tells_when_the_server_can_no_longer_have_everything() -> None:
    day_us = 86_400 * 1_000_000
    track = WikimediaTrack("https://h/s", user_agent="t", remember=5, position=None)
    track.connected(0)
    track.is_new(Message(b"{}", id="[1]"), 10)
    for away_us, notes in ((6 * day_us, 0), (8 * day_us, 1)):
        resumed = WikimediaTrack("https://h/s", user_agent="t", remember=5, position=track.position())
        assert resumed.address().headers["Last-Event-ID"] == "[1]"
        resumed.connected(10 + away_us)
        assert len(resumed.notes()) == notes


def test_streams_are_asked_for_unpacked_and_ids_may_hold_any_character() -> None:
    stage = Stage(wikimedia_script(10, 1))
    asked: list[bytes] = []
    with sse_server(stage) as url:
        address = Address(url, {"Last-Event-ID": '[{"offset": 4, "topic": "ü"}]'})
        connection = SseConnection(address, Limits())
        for message in connection.messages():
            if message.value is not None:
                asked.append(message.value)
            if len(asked) == 5:
                break
    assert stage.requests[0]["accept-encoding"] == "identity"
    assert asked == [sent.value.encode() for sent in stage.script[5:]]
