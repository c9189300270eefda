"""The events of the drill: a graph a partition, sent at a steady rate, in event time faster than the clock."""

import json
import random
import threading
import time

from infra.steps import HOUR_US, SECOND_US, format_time
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender

BEGIN_US = 1_767_225_600_000_000
EVENTS_PER_S = 40
# Seconds of event time in a second: steps of a minute close every six seconds.
SPEED = 10


def graph_of(partition: int) -> str:
    """Return the graph whose events are in a partition."""
    return f"town{partition}"


class Town:
    """Sends events from a thread of its own until it is told to end; every event is another one."""

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        self._where = bootstrap_servers
        self._topic = topic
        self._partitions = partitions
        self._draw = random.Random(7)
        self._begin_s = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send, name="producer")
        self.failure: BaseException | None = None
        self.sent = 0

    def start(self) -> None:
        """Begin to send."""
        self._begin_s = time.monotonic()
        self._thread.start()

    def end(self) -> None:
        """Stop sending, and send an event to each partition so much later that all steps before can close."""
        self._end.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        with self._sender() as sender:
            for partition in range(self._partitions):
                self._one(sender, partition, self._now_us() + HOUR_US)
            sender.flush()

    def history(self, hours: int) -> None:
        """Send what happened in the hours before, so that there is something to forecast from."""
        with self._sender() as sender:
            for minute in range(60 * hours):
                at_us = BEGIN_US + (minute - 60 * hours) * 60 * SECOND_US
                for partition in range(self._partitions):
                    for _ in range(1 + minute % 5):
                        self._one(sender, partition, at_us + self._draw.randrange(60 * SECOND_US))
            sender.flush()

    def _now_us(self) -> int:
        return BEGIN_US + int((time.monotonic() - self._begin_s) * SPEED * SECOND_US)

    def _sender(self) -> KafkaSender:
        return KafkaSender(Connection(bootstrap_servers=self._where))

    def _send(self) -> None:
        try:
            with self._sender() as sender:
                while not self._end.wait(0.25):
                    for _ in range(EVENTS_PER_S // 4):
                        self._one(sender, self._draw.randrange(self._partitions), self._now_us())
                    sender.flush()
        except BaseException as failure:  # noqa: BLE001 - raised again by `end`, in the thread that waits for it
            self.failure = failure

    def _one(self, sender: KafkaSender, partition: int, at_us: int) -> None:
        draw = self._draw
        names = [f"u{int(200 * draw.random() ** 2)}" for _ in range(2)]
        event = {"graph": graph_of(partition), "src": names[0], "dst": names[1], "ts": format_time(at_us)}
        sender.send(self._topic, json.dumps(event).encode(), partition=partition)
        self.sent += 1
