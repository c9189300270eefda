"""HTTP load from one process on this machine: at a fixed rate, or as fast as answers come. Standard library only.

With a rate, request `i` is due at `begin + i / rate`, whatever became of those before it, and its latency counts from
then: a server that stalls is charged for every request that came due meanwhile. Run as
`python -m forecasting.bench.http_load` with a plan on stdin; one JSON object comes out.
"""

import json
import math
import resource
import select
import socket
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

# Requests that have no answer so long after the last one was due have failed.
GRACE_S = 10.0
_PART_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent.

    Attributes:
        port: of 127.0.0.1.
        requests: whole requests as text, sent in turn.
        seconds: how long.
        connections: that are kept open, and requests under way at most.
        rate: requests a second; None sends the next one as soon as a connection is free, and times from there.
    """

    port: int
    requests: tuple[str, ...]
    seconds: float
    connections: int = 64
    rate: float | None = None


@dataclass(slots=True)
class Result:
    """What came back.

    Attributes:
        seconds: from the first request to the last answer.
        latencies_ms: of each answer that is a success, in the order in which they came.
        statuses: answers by status.
        failed: requests that had no whole answer.
        cpu_s: processor time of the process that sent them.
        late_ms: by how much requests were sent late although a connection was free, the 99th percentile.
    """

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    cpu_s: float = 0.0
    late_ms: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers a second that are successes."""
        return len(self.latencies_ms) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that so many percent of the answers stay within."""
        return percentile(self.latencies_ms, percent)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of the values that so many percent of them do not exceed; infinity of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else float("inf")


class _Connection:
    """One connection, and the request that is under way on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begin_s = 0.0
        self.status = ""
        self._head = b""
        # Bytes of the body that are still to come; None before the head, -1 until a last chunk.
        self._left: int | None = None

    def send(self, request: bytes, begin_s: float) -> None:
        self.begin_s, self._head, self._left = begin_s, b"", None
        self.socket.sendall(request)

    def receive(self, part: bytearray) -> bool:
        """Read what is there; tell whether the answer is whole."""
        size = self.socket.recv_into(part)
        if size == 0:
            raise ConnectionError("closed before the answer was whole")
        if self._left is None:
            self._head += part[:size]
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return False
            self.status = head[9:12].decode("ascii")
            _, named, rest = head.lower().partition(b"\r\ncontent-length:")
            if named:
                self._left = int(rest.partition(b"\r\n")[0]) - len(body)
            elif b"chunked" in head.lower():
                self._left, self._head = -1, body[-5:]
            else:
                self._left = 0
        elif self._left > 0:
            self._left -= size
        else:
            self._head = (self._head + part[:size])[-5:]
        return self._left == 0 or (self._left == -1 and self._head == b"0\r\n\r\n")


def run(plan: Plan) -> Result:
    """Send what is planned.

    Raises:
        OSError: nothing listens there.
    """
    result, statuses, late_ms = Result(), Counter[str](), []
    requests = [request.encode() for request in plan.requests]
    idle = deque(_Connection(plan.port) for _ in range(plan.connections))
    busy: dict[socket.socket, _Connection] = {}
    part = bytearray(_PART_BYTES)
    count = sys.maxsize if plan.rate is None else max(1, round(plan.rate * plan.seconds))
    began = resource.getrusage(resource.RUSAGE_SELF)
    begin_s = last_s = perf_counter()
    sent, free_since_s = 0, begin_s
    while True:
        now_s = perf_counter()
        due_s = now_s if plan.rate is None else begin_s + sent / plan.rate
        more = sent < count if plan.rate is not None else now_s < begin_s + plan.seconds
        if more and due_s <= now_s and idle:
            connection = idle.popleft()
            late_ms.append(1000 * (now_s - max(due_s, free_since_s)))
            connection.send(requests[sent % len(requests)], due_s)
            busy[connection.socket] = connection
            sent += 1
            continue
        if not more and (not busy or now_s > begin_s + plan.seconds + GRACE_S):
            break
        wait_s = max(0.0, due_s - now_s) if more and idle else GRACE_S
        # `select` and not `epoll`: it waits for less than whole milliseconds.
        for ready in select.select(busy, (), (), wait_s)[0]:
            connection = busy[ready]
            try:
                if not connection.receive(part):
                    continue
                statuses[connection.status] += 1
                last_s = perf_counter()
                if connection.status.startswith("2"):
                    result.latencies_ms.append(1000 * (last_s - connection.begin_s))
            except OSError:
                result.failed += 1
                connection.socket.close()
                connection = _Connection(plan.port)
            del busy[ready]
            if not idle:
                free_since_s = perf_counter()
            idle.append(connection)
    used = resource.getrusage(resource.RUSAGE_SELF)
    result.failed += len(busy)
    result.seconds, result.statuses = last_s - begin_s, dict(statuses)
    result.cpu_s = used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime
    result.late_ms = percentile(late_ms, 99)
    for connection in [*idle, *busy.values()]:
        connection.socket.close()
    return result


def get(path: str, **headers: str) -> str:
    """Return a request without a body; underscores of header names stand for hyphens."""
    return _request("GET", path, headers)


def post(path: str, body: Any, **headers: str) -> str:
    """Return a request with a body of JSON; underscores of header names stand for hyphens."""
    text = json.dumps(body)
    headers = {"Content_Type": "application/json", "Content_Length": str(len(text.encode())), **headers}
    return _request("POST", path, headers) + text


def _request(method: str, path: str, headers: dict[str, str]) -> str:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "127.0.0.1", **headers}.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])


if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(asdict(run(Plan(**{**given, "requests": tuple(given["requests"])})))) + "\n")
