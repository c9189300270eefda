"""Appends to a spool and drains it, in processes that can be killed: forked from one that has imported everything.

Reads a JSON object a line, `{"do": "append", "from": N}` or `{"do": "drain"}`; answers `pid N`, `kept N` after each
request that is acknowledged, and `exit N`. Run: python spool_driver.py SPOOL STORE REQUESTS
"""

import json
import os
import sys
import traceback
from pathlib import Path

from stream.ingest import Ingest, IngestOptions
from stream.spool.file import Spool
from stream.spool.records import split_records
from stream.spool.source import SpoolSource
from stream.store import open_writer


def drain(spool: Path, store: str) -> None:
    with Spool(spool) as file, open_writer(store) as writer:
        Ingest(SpoolSource(file, follow=False, batch_records=20), writer, IngestOptions()).run()


def append(spool: Path, requests: Path, begin: int) -> None:
    with Spool(spool) as file:
        for number, line in enumerate(requests.read_text().splitlines()):
            if number < begin:
                continue
            request = json.loads(line)
            body = request["body"].encode()
            file.append(
                request["graph"],
                split_records(body),
                b"{}",
                owner="",
                idempotency_key=str(number),
                digest=body,
                max_bytes=1 << 30,
            )
            say(f"kept {number}")


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def serve(spool: Path, store: str, requests: Path) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                if asked["do"] == "append":
                    append(spool, requests, asked["from"])
                else:
                    drain(spool, store)
            except BaseException:  # noqa: BLE001 - told by the exit status, as the process ends here
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        say(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        say(f"exit {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
