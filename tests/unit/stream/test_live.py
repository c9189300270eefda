import json
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.errors import InputError, UsageError
from infra.settings import LiveSettings
from stream.decoders.builder import DecodeOptions
from stream.sources.live import LIVE_SOURCES, LiveSource, open_live
from stream.sources.live.connection import Address, DroppedError, Limits, Message, refusal, retry_after_s
from stream.sources.live.events import EventParser
from stream.sources.live.feed import Backoff
from stream.sources.live.jetstream import JetstreamTrack
from stream.sources.live.recent import Recent
from stream.sources.live.sse import SseConnection
from stream.sources.live.wikimedia import WikimediaTrack
from stream.sources.single import SinglePartition
from tests.unit.stream.live_cases import (
    BEGIN_US,
    QUICK,
    Committed,
    Sent,
    Stage,
    jetstream_script,
    jetstream_server,
    mastodon_script,
    read_until,
    sse_server,
    wikimedia_script,
)

SERVERS = {"wikimedia": sse_server, "jetstream": jetstream_server}
SCRIPTS = {"wikimedia": wikimedia_script, "jetstream": jetstream_script}


def live(name: str, url: str, **changes: object) -> LiveSource:
    return open_live(name, QUICK.model_copy(update=changes), url=url, environment={})


def n_of(stage: Stage) -> int:
    return len(stage.script)


def all_of(stage: Stage):  # type: ignore[no-untyped-def]
    return lambda done: done.position is not None and done.position["number"] >= len(stage.script)


@pytest.mark.parametrize("name", ["wikimedia", "jetstream"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_event_once_through_drops_repeats_garbage_and_crashes(name: str, seed: int) -> None:
    stage = Stage(SCRIPTS[name](400, seed), seed=seed, drop_share=0.04, rewind=7)
    with SERVERS[name](stage) as url:
        done = read_until(lambda: live(name, url), all_of(stage), crash_share=0.15, seed=seed)
    assert len(stage.dropped) > 5
    assert done.events == stage.events
    garbled = [sent for sent in stage.script if sent.value.startswith(("{broken", "garbage"))]
    assert [reject.record for reject in done.rejects] == [sent.value for sent in garbled]
    assert all(reject.record_of.topic == name and reject.record_of.offset >= 0 for reject in done.rejects)
    assert done.position is not None
    assert done.position["number"] == len(stage.script)
    assert done.notes == []


def test_what_lies_between_two_connections_of_mastodon_is_told(caplog: pytest.LogCaptureFixture) -> None:
    script = [*mastodon_script(200, 5), *(sent for sent in mastodon_script(300, 6)[200:] if sent.events)]
    stage = Stage(script, seed=5, drop_share=0.03)
    stage.drops.discard(len(script) - 1)
    last = stage.events[-1]
    with sse_server(stage, resumes=False) as url, caplog.at_level(logging.WARNING):
        done = read_until(lambda: live("mastodon", url), lambda done: last in done.events[-1:])
    lost = {stage.script[at].events for at in stage.dropped}
    assert done.events == [event for sent in stage.script for event in sent.events if sent.events not in lost]
    assert done.position is not None
    assert done.position["gaps"] == len(stage.dropped) == len(stage.requests) - 1 > 0
    assert "are missing: the server does not repeat them" in done.notes[0]
    assert f"{len(stage.dropped)} gaps" in done.notes[1]
    assert "connecting again in" in caplog.text


def test_a_gap_over_a_restart_of_mastodon_is_counted() -> None:
    stage = Stage([sent for sent in mastodon_script(20, 1) if sent.events])
    with sse_server(stage, resumes=False) as url:
        done = read_until(lambda: live("mastodon", url), lambda done: len(done.events) == n_of(stage))
        source = live("mastodon", url)
        batches = source.batches(done.position)
        position = next(batch.position for batch in batches if batch.position["gaps"])
        batches.close()  # type: ignore[attr-defined]
    assert position["gaps"] == 1
    assert position["number"] == n_of(stage)
    assert "1 gaps" in source.notes[1]


def test_jetstream_tells_when_the_server_no_longer_has_what_was_asked_for() -> None:
    stage = Stage(jetstream_script(100, 4))
    stage.drops = {50}
    stage.forgets = range(20, 60)
    with jetstream_server(stage) as url:
        done = read_until(
            lambda: live("jetstream", url), lambda done: done.position is not None and done.position["number"] >= 90
        )
    assert len(done.notes) == 1
    assert "may be missing" in done.notes[0]


def test_jetstream_asks_for_its_collections_and_a_cursor_before_the_last_time() -> None:
    stage = Stage(jetstream_script(30, 1))
    stage.drops = {20}
    with jetstream_server(stage) as url:
        read_until(lambda: live("jetstream", url), all_of(stage))
    first, second = (request["path"] for request in stage.requests)
    assert "cursor" not in first
    assert "wantedCollections=app.bsky.feed.like&wantedCollections=app.bsky.feed.repost" in first
    asked_us = int(second.rpartition("cursor=")[2])
    read_us = max(sent.time_us for sent in stage.script[:20] if not sent.value.startswith("garbage"))
    assert asked_us == read_us - 2_000_000


def test_jetstream_never_asks_for_what_it_has_forgotten() -> None:
    script = [sent for sent in jetstream_script(80, 2) if sent.events]
    track = JetstreamTrack(
        "wss://h/s", (), user_agent="t", overlap_us=10**9, remember=10, max_message_bytes=9, position=None
    )
    for sent in script:
        assert track.is_new(Message(sent.value.encode()), 0)
    resumed = JetstreamTrack(
        "wss://h/s", (), user_agent="t", overlap_us=10**9, remember=10, max_message_bytes=9, position=track.position()
    )
    for each in (track, resumed):
        cursor = int(each.address().url.rpartition("cursor=")[2])
        assert cursor == script[-11].time_us + 1
        each.connected(0)
        # A server that begins too early is not believed either.
        assert not any(each.is_new(Message(sent.value.encode()), 0) for sent in script)
        assert each.notes() == []


@pytest.mark.parametrize("name", ["wikimedia", "jetstream"])
def test_passing_refusals_are_tried_again(name: str, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(SCRIPTS[name](20, 1))
    stage.refusals = [(503, {}), (429, {"Retry-After": "0"}), (500, {}), (408, {})]
    with SERVERS[name](stage) as url, caplog.at_level(logging.WARNING):
        done = read_until(lambda: live(name, url), all_of(stage))
    assert done.events == stage.events
    assert [text for text in ("HTTP 503", "HTTP 429", "HTTP 500", "HTTP 408") if text not in caplog.text] == []


@pytest.mark.parametrize("name", ["wikimedia", "jetstream"])
@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "refuses access: HTTP 401"), (403, "refuses access: HTTP 403"), (404, "cannot be read: HTTP 404")],
)
def test_other_refusals_end_the_reading(name: str, status: int, said: str) -> None:
    stage = Stage(SCRIPTS[name](20, 1), refusals=[(status, {})])
    with SERVERS[name](stage) as url, pytest.raises(InputError, match=said) as raised:
        list(live(name, url).batches(None))
    assert raised.value.fix


def test_a_page_is_no_stream_and_no_content_is_an_end() -> None:
    for status, headers, said in (
        (200, {"Content-Type": "text/html"}, "sends no server-sent events"),
        (204, {}, "asks not to be called again"),
    ):
        stage = Stage([], refusals=[(status, headers)])
        with sse_server(stage) as url, pytest.raises(InputError, match=said):
            list(live("wikimedia", url).batches(None))


def test_a_server_that_stays_away_is_given_up_with_its_last_reason() -> None:
    source = live("wikimedia", "http://127.0.0.1:1/stream", give_up_after_s=0.05)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1/stream: .* every try of the last"):
        list(source.batches(None))


@pytest.mark.parametrize("name", ["wikimedia", "jetstream"])
def test_a_message_that_is_too_long_is_told_and_passed_over(name: str) -> None:
    stage = Stage(SCRIPTS[name](60, 1))
    too_long = Sent(json.dumps({"big": "x" * 20_000}), stage.script[29].time_us)
    stage.script.insert(30, too_long)
    stage.drops = {45}
    last = stage.events[-1]
    with SERVERS[name](stage) as url:
        done = read_until(
            lambda: live(name, url, max_message_bytes=10_000), lambda done: last in done.events[-1:], crash_share=0.1
        )
        # The next run goes on behind it, too.
        begun = len(stage.requests)
        again = live(name, url, max_message_bytes=10_000).batches(done.position)
        assert [len(next(again).events) for _ in range(3)] == [0, 0, 0]
        again.close()  # type: ignore[attr-defined]
    assert done.events == stage.events
    told = [reject for reject in done.rejects if "longer than [live] max_message_bytes, 10,000 bytes" in reject.reason]
    assert told
    assert all(reject.record_of is None for reject in told)
    if name == "wikimedia":
        assert told[0].record.startswith('{"big": "xxx')
        assert [json.loads(each["last-event-id"])[0]["offset"] for each in stage.requests[begun:]] == [60]
    else:
        assert "the server is asked to leave out such messages" in told[0].reason
        assert "maxMessageSizeBytes=10000" in stage.requests[1]["path"]
        assert "maxMessageSizeBytes" not in stage.requests[0]["path"]


def test_a_server_that_sends_what_it_should_leave_out_is_an_end() -> None:
    stage = Stage(jetstream_script(30, 1), leaves_out=False)
    stage.script.append(Sent(json.dumps({"big": "x" * 20_000}), BEGIN_US + 10**9))
    done = Committed()
    with jetstream_server(stage) as url, pytest.raises(InputError, match="more than 10,000 bytes"):
        for batch in live("jetstream", url, max_message_bytes=10_000).batches(None):
            done.commit(batch)
    assert done.events == stage.events


def test_strict_stops_at_a_message_that_is_too_long() -> None:
    stage = Stage([Sent(json.dumps({"big": "x" * 20_000}), BEGIN_US)])
    settings = QUICK.model_copy(update={"max_message_bytes": 10_000})
    with sse_server(stage) as url, pytest.raises(InputError, match="longer than"):
        list(open_live("wikimedia", settings, DecodeOptions(strict=True), url=url).batches(None))


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


def test_a_late_event_of_a_live_stream_has_its_whole_record() -> None:
    stage = Stage(wikimedia_script(40, 1))
    with sse_server(stage) as url:
        batches = live("wikimedia", url).batches(None)
        batch = next(batch for batch in batches if len(batch.events) > 1)
        batches.close()  # type: ignore[attr-defined]
    assert batch.letter is not None
    letter = batch.letter(1, "too late", "TRANSFORMATION")
    event = list(batch.events)[1]
    assert letter.record_of is not None
    assert json.loads(letter.record_of.value or b"")["meta"]["id"] == event.id
    assert (letter.reason, letter.stage) == ("too late", "TRANSFORMATION")

    class Once:
        name = "live"

        def batches(self, resume_after: object) -> object:
            return iter([batch])

    class Claims:
        def claim(self, partitions: object) -> dict[str, None]:
            return {"": None}

    [handed] = SinglePartition(Once()).batches(Claims())  # type: ignore[arg-type]
    assert handed.letter is batch.letter


@pytest.mark.parametrize("name", ["wikimedia", "jetstream"])
def test_quiet_times_give_empty_batches_and_stop_ends_them(name: str) -> None:
    stage = Stage(SCRIPTS[name](10, 1))
    stop = threading.Event()
    empty = 0
    with SERVERS[name](stage) as url:
        source = open_live(name, QUICK, url=url, stop=stop.is_set)
        for batch in source.batches(None):
            empty += not len(batch.events) and batch.position["number"] == 10
            if empty == 3:
                stop.set()
    assert empty == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "live-source"]


def test_a_silent_server_counts_as_lost() -> None:
    stage = Stage(wikimedia_script(10, 1))
    quiet = threading.Event()

    class Silent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            del timeout
            return quiet.wait(20)

    stage.over = Silent()
    with sse_server(stage) as url:
        settings = {"read_timeout_s": 0.1}
        done = read_until(
            lambda: live("wikimedia", url, **settings), lambda done: len(stage.requests) >= 3 and bool(done.events)
        )
        quiet.set()
    assert done.events == stage.events


def test_strict_stops_at_the_first_bad_record() -> None:
    stage = Stage([Sent("{broken", BEGIN_US)])
    with sse_server(stage) as url:
        source = open_live("wikimedia", QUICK, DecodeOptions(strict=True), url=url)
        with pytest.raises(InputError, match="bad record"):
            list(source.batches(None))


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
