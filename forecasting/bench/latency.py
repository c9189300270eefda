"""How long a reader of a store waits for snapshots while a process ingests into it as fast as it can."""

import json
import select
import subprocess
import sys
import time
from contextlib import suppress

from forecasting.bench.broker import Topic
from forecasting.bench.ingest_systems import ingest
from forecasting.bench.processes import ROOT, PeerError
from infra.errors import StoreError
from stream.events import DEFAULT_GRAPH
from stream.store import open_reader

# Long enough to have some hundreds of snapshots, short enough to close many while the topic is read.
STEP = "5s"
LAST = 100
# A dashboard asks now and then; without a pause the reader would take a core from ingestion.
PAUSE_S = 0.005
_STOP_S = 30.0
# Fewer say nothing of one in a hundred.
MIN_WAITS = 200


def reader_latencies_ms(topic: Topic, store_url: str) -> list[float]:
    """Ingest a topic and ask for the last snapshots meanwhile, in a process of its own; return how long each took.

    Raises:
        PeerError: ingestion or the reader failed, or the topic is too short.
    """
    reader = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, store_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        ingest(topic, store_url, client="kafka-python", step=STEP)
        out, _ = reader.communicate(b"\n", timeout=_STOP_S)
        waits_ms: list[float] = json.loads(out)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise PeerError(f"the reader failed: {error}") from error
    finally:
        reader.kill()
        reader.wait()
    if len(waits_ms) < MIN_WAITS:
        raise PeerError(f"only {len(waits_ms)} reads while it was ingested")
    return waits_ms


def read_until_told(store_url: str) -> list[float]:
    """Ask for the last snapshots until a line comes on the standard input; return how long each took, in ms.

    Only answers with all `LAST` snapshots count.
    """
    waits_ms: list[float] = []
    reader = None
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        with suppress(StoreError):
            if reader is None:
                reader = open_reader(store_url)
            began_s = time.perf_counter()
            table = reader.snapshots(DEFAULT_GRAPH, last=LAST)
            if len(table) == LAST:
                waits_ms.append((time.perf_counter() - began_s) * 1000)
    return waits_ms


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_until_told(sys.argv[1])))
