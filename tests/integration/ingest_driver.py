"""Runs the command line in processes that can be killed: forked from one that has imported everything.

Reads the arguments of a call as a JSON array a line, answers `pid N`, then `exit N`.
"""

import json
import os
import sys

import forecasting.cli.kafka
import forecasting.ingestion  # noqa: F401
import stream.sources.kafka.client_confluent
import stream.sources.kafka.client_kafka_python
import stream.sources.kafka.opening  # noqa: F401
from forecasting.cli import main


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def serve() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            with open("driver.log", "ab", buffering=0) as log:  # noqa: PTH123
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            main(json.loads(line))
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"exit {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    serve()
