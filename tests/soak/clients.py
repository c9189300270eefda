"""The clients of a fault run: each asks in a thread of its own until it is over, and keeps what is checked then."""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from tests import plain_http
from tests.soak.ledger import Ledger
from tests.soak.world import GROWING, STILL, World

TIMEOUT_S = 90.0
HOUR_S = 3600
# 2024-01-01: the first hour of the graph that grows.
_BEGIN_S = 1_704_067_200
_MOST_STEPS = 3000
# Hours of the graph that grows before the load begins: a model needs a week.
FIRST_HOURS = 180


@dataclass(slots=True)
class Seen:
    """What has to be compared when the run is over.

    Attributes:
        short: by graph, snapshots and query, digests of the bodies that were answered, with the digest they named.
        jobs: by id, what was asked, and the numbers that were streamed.
        reports: ids.
        events: acknowledged events by hour since `_BEGIN_S`.
    """

    short: dict[tuple[str, int, str], set[tuple[str, bytes]]] = field(default_factory=dict)
    jobs: dict[str, tuple[dict[str, Any], dict[str, list[float]] | None]] = field(default_factory=dict)
    reports: list[str] = field(default_factory=list)
    events: dict[int, int] = field(default_factory=dict)
    malformed: int = 0


class Clients:
    """All clients.

    Args:
        world: what they ask.
        ledger: where answers are noted.
        seed: of what they ask.
        pace: seconds between two requests of a client, about.
    """

    def __init__(self, world: World, ledger: Ledger, *, seed: int, pace: float, malformed: int) -> None:
        self.seen = Seen()
        self.begin_s = _BEGIN_S
        self._world = world
        self._ledger = ledger
        self._seed = seed
        self._pace = pace
        self.malformed = malformed
        self._over = threading.Event()
        turns = (
            self._short,
            self._short,
            self._cached,
            self._job,
            self._job,
            self._snapshots,
            self._send,
            self._report,
        )
        self._threads = [threading.Thread(target=self._repeat, args=(turn, n)) for n, turn in enumerate(turns)]
        self._threads.append(threading.Thread(target=self._repeat, args=(self._nonsense, len(turns))))

    def start(self) -> None:
        """Begin, when the graph that grows is long enough for the model."""
        draw = random.Random(self._seed)
        with self.client() as client:
            for hour in range(FIRST_HOURS):
                self.send_hour(client, hour, draw)
            while client.get(f"/v1/graphs/{GROWING}").json().get("snapshots", 0) < FIRST_HOURS - 2:
                self._world.start_ingest()
                if self._over.wait(0.5):
                    return
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; each finishes what it is about."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def client(self) -> httpx.Client:
        """Return a client with the key."""
        headers = {"Authorization": f"Bearer {self._world.token}"}
        return plain_http.Client(base_url=self._world.service.url, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def _repeat(self, turn: Callable[[httpx.Client, random.Random], float | None], number: int) -> None:
        draw = random.Random(f"{self._seed} {number}")
        with self.client() as client:
            while not self._over.is_set():
                try:
                    pause = turn(client, draw)
                except httpx.TransportError as error:
                    self._ledger.lost(turn.__name__.strip("_"), error)
                    pause = 0.5
                except Exception as error:  # noqa: BLE001 - a client that dies must not look like one that is content
                    self._ledger.violate(f"the client {turn.__name__} failed: {error!r}")
                    pause = 1.0
                self._over.wait(self._pace * draw.uniform(0.5, 1.5) if pause is None else pause)

    def _short(self, client: httpx.Client, draw: random.Random) -> None:
        graph = draw.choice((STILL, GROWING))
        names = draw.sample(METRIC_NAMES, draw.randint(1, len(METRIC_NAMES)))
        levels = draw.sample(QUANTILE_LEVELS, draw.randint(1, len(QUANTILE_LEVELS)))
        query = (
            f"horizon={draw.randint(1, 168)}&metrics={','.join(names)}&quantiles={','.join(map(str, sorted(levels)))}"
        )
        query += draw.choice(("", "", "&format=long"))
        headers = {"Cache-Control": "no-cache"} if draw.random() < 0.5 else {}
        self._forecast(client, "short", graph, query, headers)

    def _cached(self, client: httpx.Client, draw: random.Random) -> None:
        query = f"horizon={draw.choice((24, 48, 168))}&metrics=events,total_nodes"
        response = self._forecast(client, "cached", STILL, query, {})
        if response is not None:
            again = client.get(response.request.url, headers={"If-None-Match": response.headers["etag"]})
            self._ledger.sent("cached", again, (304,))

    def _forecast(
        self, client: httpx.Client, name: str, graph: str, query: str, headers: dict[str, str]
    ) -> httpx.Response | None:
        response = client.get(f"/v1/graphs/{graph}/forecast?{query}", headers=headers)
        if not self._ledger.sent(name, response, (200,)):
            return None
        about = response.json()["provenance"]
        if about["degraded"]:
            self._ledger.violate(f"{name}: a floor answered: {about['degraded_reason']}")
        body = hashlib.blake2b(response.content, digest_size=16).digest()
        key = graph, about["snapshots"], query
        self.seen.short.setdefault(key, set()).add((about["snapshot_digest"], body))
        return response

    def _job(self, client: httpx.Client, draw: random.Random) -> float | None:
        asked = {
            "horizon": draw.randint(1, _MOST_STEPS),
            "metrics": draw.sample(METRIC_NAMES, 2),
            "quantiles": [0.1, 0.5, 0.9],
            "seed": draw.randint(0, 3),
        }
        key = {"Idempotency-Key": f"{draw.getrandbits(64):x}"}
        job = None
        while job is None:
            # Whoever has no answer asks again with the same key, as a client would, and gets the same job.
            try:
                response = client.post(f"/v1/graphs/{STILL}/forecasts", json=asked, headers=key)
                if self._ledger.sent("ask", response, (202,)):
                    job = str(response.json()["id"])
            except httpx.TransportError as error:
                self._ledger.lost("ask", error)
            if job is None and self._over.wait(1.0):
                return None
        self.seen.jobs[job] = asked, None
        streamed = self._stream(client, draw, job)
        if streamed is not None:
            self.seen.jobs[job] = asked, streamed
        return 3 * self._pace

    def _stream(self, client: httpx.Client, draw: random.Random, job: str) -> dict[str, list[float]] | None:
        """Follow a job to its end, with disconnects; return the medians that came, None if the run ended before."""
        last, medians = 0, dict[str, list[float]]()
        while True:
            headers = {"Accept": "application/x-ndjson", "Last-Event-ID": str(last)}
            leave_after = draw.randint(1, 4)
            try:
                with client.stream("GET", f"/v1/forecasts/{job}/stream", headers=headers) as response:
                    if not self._ledger.sent("stream", response, (200,)):
                        if self._over.wait(1.0):
                            return None
                        continue
                    for line in response.iter_lines():
                        event: dict[str, Any] = json.loads(line) if line.strip() else {"event": "heartbeat"}
                        if event["event"] == "chunk":
                            if event["first_step"] != last:
                                self._ledger.violate(f"job {job}: after step {last} came {event['first_step']}")
                            last = event["last_step"]
                            for one in event["outputs"]:
                                medians.setdefault(one["name"], []).extend(one["quantiles"]["0.5"])
                            leave_after -= 1
                        if event["event"] == "end":
                            if event["status"] != "done":
                                self._ledger.violate(f"job {job} ended as {event['status']}: {event['problem']}")
                            return medians
                        if leave_after == 0:
                            break
            except httpx.TransportError as error:
                self._ledger.lost("stream", error)
                if self._over.wait(0.5):
                    return None

    def _snapshots(self, client: httpx.Client, draw: random.Random) -> None:
        cursor = ""
        for _ in range(draw.randint(1, 4)):
            response = client.get(f"/v1/graphs/{STILL}/snapshots?limit=200{cursor}")
            if not self._ledger.sent("snapshots", response, (200,)):
                return
            following = response.json()["next_cursor"]
            if following is None:
                return
            cursor = f"&cursor={following}"

    def _send(self, client: httpx.Client, draw: random.Random) -> None:
        """Send the events of the next hour; again with the same key until they are acknowledged."""
        self.send_hour(client, max(self.seen.events, default=-1) + 1, draw)

    def send_hour(self, client: httpx.Client, hour: int, draw: random.Random) -> None:
        """Send events of an hour and note how many."""
        events = [
            {
                "src": f"n{draw.randint(0, 50)}",
                "dst": f"n{draw.randint(0, 50)}",
                "ts": _BEGIN_S + hour * HOUR_S + draw.randint(0, HOUR_S - 1),
            }
            for _ in range(draw.randint(1, 12))
        ]
        # An event that is older than one before it would be late: they go in order.
        events.sort(key=lambda event: float(event["ts"]))
        while True:
            try:
                response = client.post(
                    f"/v1/graphs/{GROWING}/events", json=events, headers={"Idempotency-Key": f"hour-{hour}"}
                )
                if self._ledger.sent("events", response, (202,)):
                    if response.json()["accepted"] != len(events):
                        self._ledger.violate(f"of {len(events)} events {response.json()['accepted']} were accepted")
                    self.seen.events[hour] = len(events)
                    return
            except httpx.TransportError as error:
                self._ledger.lost("events", error)
            time.sleep(0.5)

    def close_hour(self, client: httpx.Client, hour: int) -> None:
        """Send an event of a later hour, which is not among those that are compared."""
        self.send_hour(client, hour, random.Random(hour))
        del self.seen.events[hour]

    def _report(self, client: httpx.Client, draw: random.Random) -> float:
        response = client.post(f"/v1/graphs/{STILL}/reports", json={"horizon": draw.randint(24, 200)})
        if self._ledger.sent("report", response, (202,)):
            self.seen.reports.append(response.headers["location"])
        return 120 * self._pace

    def _nonsense(self, client: httpx.Client, draw: random.Random) -> float:
        if self.seen.malformed >= self.malformed:
            return 1.0
        self.seen.malformed += 1
        method, path, options = _malformed(draw)
        response = client.request(method, path, **options)
        self._ledger.sent("malformed", response, tuple(range(400, 500)))
        return 0.0 if self._pace == 0 else self._pace / 10


def _malformed(draw: random.Random) -> tuple[str, str, dict[str, Any]]:
    """Return a request that no service can answer as if it were right."""
    letters = (chr(draw.choice((draw.randint(33, 126), draw.randint(0xA1, 0x2FF)))) for _ in range(draw.randint(1, 60)))
    junk = f"~{''.join(letters)}"
    raw = b"\x00" + draw.randbytes(draw.randint(1, 400))
    forecast, jobs, events = (f"/v1/graphs/{STILL}/{name}" for name in ("forecast", "forecasts", "events"))
    return draw.choice(
        (
            ("GET", forecast, {"params": {"horizon": junk}}),
            ("GET", forecast, {"params": {"horizon": draw.choice(("0", "-1", "1e9", "9" * 400, "NaN"))}}),
            ("GET", forecast, {"params": {"metrics": junk}}),
            ("GET", forecast, {"params": {"quantiles": draw.choice((junk, "0.55", "2", "-0.1", "inf"))}}),
            ("GET", forecast, {"params": [("horizon", "1"), ("horizon", "2")]}),
            ("GET", forecast, {"params": {f"x{draw.getrandbits(40)}": "1"}}),
            ("POST", jobs, {"content": raw}),
            ("POST", jobs, {"content": json.dumps({"horizon": draw.choice((0, -5, 10**9, "x", None, [1]))})}),
            ("POST", jobs, {"content": b"[" * draw.randint(1, 20_000)}),
            ("POST", jobs, {"content": b"{}" * 40_000}),
            ("POST", events, {"content": b"\xff" + raw}),
            ("POST", events, {"content": json.dumps([{"src": junk}])}),
            ("GET", f"/v1/graphs/{draw.getrandbits(60):x}/forecast", {}),
            ("GET", f"/v1/forecasts/{draw.getrandbits(60):x}/result", {}),
            ("GET", f"/v1/graphs/{STILL}/snapshots", {"params": {"cursor": junk}}),
            ("GET", f"/v1/graphs/{STILL}/snapshots", {"params": {"start": junk}}),
            (draw.choice(("PUT", "PATCH", "DELETE", "TRACE")), forecast, {}),
            ("GET", forecast, {"headers": {"Authorization": f"Bearer gt_{draw.getrandbits(48):012x}_{'x' * 43}"}}),
            ("GET", f"/v1/graphs/{STILL}/live", {"headers": {"Last-Event-ID": f"{draw.getrandbits(80):x}"}}),
            ("POST", f"/v1/graphs/{STILL}/reports", {"content": raw}),
        )
    )
