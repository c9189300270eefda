"""Local servers of live streams that drop, repeat and garble what is made here in the shapes of the services."""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from infra.settings import LiveSettings
from infra.steps import SECOND_US, format_time
from stream.events import Event
from stream.sources.base import Position, SourceBatch
from stream.sources.live import LiveSource, open_live

BEGIN_US = 1_767_225_600_000_000
QUICK = LiveSettings(
    flush_interval_s=0.02,
    batch_messages=40,
    connect_timeout_s=5,
    read_timeout_s=5,
    backoff_min_s=0.001,
    backoff_max_s=0.01,
    give_up_after_s=20,
)
PATIENCE_S = 40.0


@dataclass(frozen=True)
class Sent:
    """One message of a script: its payload, its time at the server, and the events that it is."""

    value: str
    time_us: int
    events: tuple[Event, ...] = ()
    event: str = ""


def wikimedia_script(n: int, seed: int) -> list[Sent]:
    """Return edits; one in ten is a canary or no JSON. Several share a millisecond."""
    rng = random.Random(seed)
    sent: list[Sent] = []
    for at in range(n):
        ts_us = BEGIN_US + at // 3 * 1000
        user, title, kind = f"U{rng.randrange(30)}", f"P{rng.randrange(50)}", rng.choice(["edit", "new", "log"])
        draw = rng.random()
        if draw < 0.05:
            sent.append(Sent(f"{{broken {at}", ts_us))
            continue
        domain = "canary" if draw < 0.1 else "en.wikipedia.org"
        meta = {"id": f"uuid-{at}", "dt": format_time(ts_us), "domain": domain, "stream": "mediawiki.recentchange"}
        change = {"meta": meta, "type": kind, "user": user, "wiki": "enwiki", "title": title, "namespace": 0}
        event = Event(user, f"enwiki:{title}", ts_us, type=kind, id=f"uuid-{at}")
        sent.append(Sent(json.dumps(change), ts_us, () if domain == "canary" else (event,)))
    return sent


def jetstream_script(n: int, seed: int) -> list[Sent]:
    """Return commits; some are deletions, some identity messages, some no JSON."""
    rng = random.Random(seed)
    sent: list[Sent] = []
    for at in range(n):
        ts_us = BEGIN_US + at * 100_000
        did, other = f"did:plc:{rng.randrange(30)}", f"did:plc:{rng.randrange(30)}"
        draw = rng.random()
        if draw < 0.05:
            sent.append(Sent(f"garbage {at}", ts_us))
        elif draw < 0.15:
            sent.append(Sent(json.dumps({"did": did, "time_us": ts_us, "kind": "identity"}), ts_us))
        else:
            operation = "delete" if draw < 0.25 else "create"
            collection, rkey = "app.bsky.feed.like", f"k{at}"
            commit: dict[str, Any] = {"rev": f"r{at}", "operation": operation, "collection": collection, "rkey": rkey}
            if operation == "create":
                commit["record"] = {"subject": {"uri": f"at://{other}/app.bsky.feed.post/1"}}
            value = json.dumps({"did": did, "time_us": ts_us, "kind": "commit", "commit": commit})
            event = Event(did, other, ts_us, type="like", id=f"at://{did}/{collection}/{rkey}")
            sent.append(Sent(value, ts_us, (event,) if operation == "create" else ()))
    return sent


def mastodon_script(n: int, seed: int) -> list[Sent]:
    """Return statuses that reblog, and deletions."""
    rng = random.Random(seed)
    sent: list[Sent] = []
    for at in range(n):
        ts_us = BEGIN_US + at * SECOND_US
        if rng.random() < 0.2:
            sent.append(Sent(str(at), ts_us, event="delete"))
            continue
        user, other = f"u{rng.randrange(20)}", f"u{rng.randrange(20)}@else.where"
        status = {
            "id": str(at),
            "created_at": format_time(ts_us),
            "account": {"id": "1", "acct": user},
            "reblog": {"account": {"acct": other}},
        }
        sent.append(
            Sent(json.dumps(status), ts_us, (Event(user, other, ts_us, type="reblog", id=str(at)),), event="update")
        )
    return sent


@dataclass
class Stage:
    """What a server does, beside sending its script.

    Attributes:
        drop_share: of messages at which the connection is cut, at the first time that they are sent.
        refusals: answers to the first requests, in the place of the stream.
        rewind: how many messages before what was asked for the server begins; as Kafka does with equal times.
        leaves_out: whether the server leaves out messages that are longer than is asked for.
        forgets: messages that the server no longer has when it is asked again.
        requests: the headers and the path of each.
        dropped: the messages at which a connection was cut.
        over: ends what the server still does.
    """

    script: list[Sent]
    seed: int = 0
    drop_share: float = 0.0
    refusals: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    rewind: int = 0
    forgets: range = range(0)
    leaves_out: bool = True
    requests: list[Mapping[str, str]] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.drops = {at for at in range(len(self.script)) if rng.random() < self.drop_share}

    def cut_at(self, at: int) -> bool:
        """Tell whether the connection is to be cut at a message; each only once, so that every run ends."""
        if at not in self.drops or at in self.dropped:
            return False
        self.dropped.add(at)
        return True

    @property
    def events(self) -> list[Event]:
        return [event for sent in self.script for event in sent.events]


@contextmanager
def sse_server(stage: Stage, *, resumes: bool = True) -> Iterator[str]:
    """Serve a stage over server-sent events; without `resumes` each connection goes on behind what was sent."""
    reached = 0

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            nonlocal reached
            stage.requests.append({**{k.lower(): v for k, v in self.headers.items()}, "path": self.path})
            if stage.refusals:
                status, headers = stage.refusals.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.end_headers()
            last = self.headers.get("Last-Event-ID")
            begin = reached
            if resumes:
                begin = 0 if last is None else max(json.loads(last)[0]["offset"] + 1 - stage.rewind, 0)
            rng = random.Random(len(stage.requests))
            self.write(b":ok\n\nretry: 5\n\nnonsense\nfield: unknown\n\n")
            for at in range(begin, len(stage.script)):
                reached = at + 1
                sent = stage.script[at]
                name = f"event: {sent.event}\n" if sent.event else rng.choice(["", "event: message\n"])
                mark = f"id: {json.dumps([{'topic': 'eqiad', 'offset': at}])}\n" if resumes else ""
                text = f"{name}{mark}data: {sent.value}\n\n".encode()
                if stage.cut_at(at):
                    self.write(text[: rng.randrange(len(text))])
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.write(text + rng.choice([b"", b": heartbeat\n\n", b":\n"]))
            while not stage.over.wait(0.02):
                self.write(b":thump\n\n")

        def write(self, data: bytes) -> None:
            try:
                self.wfile.write(data)
            except OSError:
                stage.over.wait(0.001)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v2/stream/recentchange"
    finally:
        stage.over.set()
        server.shutdown()
        server.server_close()


@contextmanager
def jetstream_server(stage: Stage) -> Iterator[str]:
    """Serve a stage as Jetstream does: from the cursor on, inclusive."""

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        stage.requests.append({"path": connection.request.path})
        cursor = int(query.get("cursor", ["0"])[0])
        resumed = "cursor" in query
        longest = int(query.get("maxMessageSizeBytes", ["0"])[0]) if stage.leaves_out else 0
        try:
            for at, sent in enumerate(stage.script):
                if sent.time_us < cursor or (resumed and at in stage.forgets):
                    continue
                if 0 < longest < len(sent.value):
                    continue
                if stage.cut_at(at):
                    connection.socket.shutdown(socket.SHUT_RDWR)
                    return
                connection.send(sent.value)
            stage.over.wait(PATIENCE_S)
        except (ConnectionClosed, OSError):
            pass

    def refuse(connection: ServerConnection, _request: Any) -> Any:
        if stage.refusals:
            status, headers = stage.refusals.pop(0)
            response = connection.respond(status, "no\n")
            for name, value in headers.items():
                response.headers[name] = value
            return response
        return None

    with serve(handle, "127.0.0.1", 0, process_request=refuse) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/subscribe"
        finally:
            stage.over.set()
            server.shutdown()


@dataclass
class Committed:
    """What a run wrote down together with its position, as the store does."""

    events: list[Event] = field(default_factory=list)
    rejects: list[Any] = field(default_factory=list)
    position: Position | None = None
    notes: list[str] = field(default_factory=list)

    def commit(self, batch: SourceBatch) -> None:
        self.events += list(batch.events)
        self.rejects += batch.rejects
        self.position = batch.position


def read_until(
    make: Callable[[], LiveSource], enough: Callable[[Committed], bool], *, crash_share: float = 0.0, seed: int = 0
) -> Committed:
    """Read and commit batches until there is enough; at times the process dies before it commits one."""
    rng = random.Random(seed)
    done = Committed()
    give_up_s = time.monotonic() + PATIENCE_S
    while not enough(done):
        source = make()
        batches = source.batches(done.position)
        try:
            for batch in batches:
                assert time.monotonic() < give_up_s, f"{len(done.events)} events after {PATIENCE_S:g} s"
                if rng.random() < crash_share:
                    break
                done.commit(batch)
                if enough(done):
                    break
        finally:
            batches.close()  # type: ignore[attr-defined]
        done.notes = source.notes
    return done


def live(name: str, url: str, **changes: object) -> LiveSource:
    return open_live(name, QUICK.model_copy(update=changes), url=url, environment={})
