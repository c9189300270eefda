import json
import logging
import threading

import pytest

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions
from stream.sources.live import open_live
from stream.sources.live.connection import Message
from stream.sources.live.jetstream import JetstreamTrack
from stream.sources.single import SinglePartition
from tests.unit.stream.live_cases import (
    BEGIN_US,
    QUICK,
    Committed,
    Sent,
    Stage,
    jetstream_script,
    jetstream_server,
    live,
    mastodon_script,
    read_until,
    sse_server,
    wikimedia_script,
)

SERVERS = {"wikimedia": sse_server, "jetstream": jetstream_server}
SCRIPTS = {"wikimedia": wikimedia_script, "jetstream": jetstream_script}


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
