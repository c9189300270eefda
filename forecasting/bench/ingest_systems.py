"""What is measured by `graphtide bench ingest`: each system reads a topic to its end in a process of its own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import forecasting.bench.stream_peers
from forecasting.bench import kafka_poll
from forecasting.bench.broker import Topic
from forecasting.bench.processes import ROOT, PeerError, environment_python
from forecasting.bench.stream_input import OUT_OF_ORDER_MS, PARTITIONS, STEP_MS, Truth
from stream.store import open_reader

RUN_TIMEOUT_S = 300.0
_PEERS = Path(forecasting.bench.stream_peers.__file__).parent
_POLL_S = 0.02
_SHOWN_CHARS = 300
_GRAPHTIDE = (sys.executable, "-c", "import sys; from forecasting.cli import main; sys.exit(main())")
_SETTINGS = {"GRAPHTIDE_INGEST__OUT_OF_ORDERNESS_S": str(OUT_OF_ORDER_MS // 1000)}
# Fixed, so that results compare over time.
_REQUIREMENTS = {
    "kafka-python-poll": ("kafka-python[crc32c]==3.0.12",),
    "bytewax": ("bytewax[kafka]==0.21.1", "msgspec==0.22.0"),
    "quix": ("quixstreams==3.28.0",),
}


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a system over a topic.

    Attributes:
        events: that it read.
        seconds: as the system says itself: without the start of its process.
        cpu_s: of the process, its start included.
        peak_bytes: of its memory.
    """

    events: int
    seconds: float
    cpu_s: float
    peak_bytes: int

    @property
    def events_per_s(self) -> float:
        """Events a second."""
        return self.events / self.seconds


System = Callable[[Topic], Ran]


def graphtide(*, client: str) -> System:
    """Return our own: `graphtide ingest kafka` into a new SQLite store with a client library of that name."""

    def run(topic: Topic) -> Ran:
        with TemporaryDirectory(prefix="graphtide-bench-") as folder:
            return ingest(topic, f"sqlite:///{folder}/store.db", client=client)

    return run


def ingest(topic: Topic, store_url: str, *, client: str, step: str = f"{STEP_MS // 60_000}m") -> Ran:
    """Run `graphtide ingest kafka` over a topic into a store, and check what it has in the end if steps are minutes.

    Raises:
        PeerError: it failed, or counted wrongly.
    """
    words = ["--bootstrap-servers", topic.servers, "--topics", topic.name, "--client", client, "--close-at-end"]
    command = [*_GRAPHTIDE, "ingest", "kafka", *words, "--step", step, "--store", store_url, "--json"]
    answer, ran = _run(command, {**_SETTINGS, "PYTHONPATH": str(ROOT)})
    if step == "1m":
        _check(counts_in_store(store_url), topic)
    return Ran(topic.truth.events, float(answer["seconds"]), *ran)


def kafka_python_poll(say: Callable[[str], None]) -> System:
    """Return raw polling by kafka-python."""
    python = environment_python("kafka-python-poll", _REQUIREMENTS["kafka-python-poll"], say)
    return lambda topic: _polled(topic, [python, "-I", str(_PEERS / "kafka_python_poll.py")])


def graphtide_poll() -> System:
    """Return our own reading of records, by kafka-python's connections, and nothing beside it."""
    command = [sys.executable, "-m", kafka_poll.__name__]
    return lambda topic: _polled(topic, command, {"PYTHONPATH": str(ROOT)})


def _polled(topic: Topic, command: Sequence[str], environment: dict[str, str] | None = None) -> Ran:
    arguments = [topic.servers, topic.name, str(PARTITIONS), str(topic.records)]
    answer, ran = _run([*command, *arguments], environment)
    if answer["events"] != topic.records:
        raise PeerError(f"it polled {answer['events']:,} records of {topic.records:,}")
    return Ran(topic.records, answer["seconds"], *ran)


def bytewax(say: Callable[[str], None]) -> System:
    """Return Bytewax with the three counts."""
    python = environment_python("bytewax", _REQUIREMENTS["bytewax"], say)

    def run(topic: Topic) -> Ran:
        answer, ran = _run([python, "-I", str(_PEERS / "bytewax_windows.py"), topic.servers, topic.name])
        _check(_counts(answer), topic)
        return Ran(topic.truth.events, answer["seconds"], *ran)

    return run


def quix(say: Callable[[str], None]) -> System:
    """Return Quix Streams with the three counts; its topics have to end with events that close the last windows."""
    python = environment_python("quix", _REQUIREMENTS["quix"], say)

    def run(topic: Topic) -> Ran:
        with TemporaryDirectory(prefix="graphtide-bench-") as folder:
            arguments = [topic.servers, topic.name, str(topic.records), folder]
            answer, ran = _run([python, "-I", str(_PEERS / "quix_windows.py"), *arguments])
        _check(_counts(answer), topic)
        return Ran(topic.truth.events, answer["seconds"], *ran)

    return run


def counts_in_store(store_url: str) -> Truth:
    """Return the sums over all snapshots of a store."""
    names = ("events", "active_nodes", "unique_edges")
    reader = open_reader(store_url)
    try:
        tables = [reader.snapshots(graph.name, metrics=names) for graph in reader.graphs()]
    finally:
        reader.close()
    return Truth(*(sum(int(table.values[:, at].sum()) for table in tables) for at in range(len(names))))


def _counts(answer: dict[str, Any]) -> Truth:
    return Truth(answer["events"], answer["active_nodes"], answer["unique_edges"])


def _check(counted: Truth, topic: Topic) -> None:
    if counted != topic.truth:
        raise PeerError(f"it counted {counted}, not {topic.truth}")


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[dict[str, Any], tuple[float, int]]:
    """Run a command; return the JSON object that it prints, and its CPU seconds and peak memory in bytes.

    Raises:
        PeerError: it failed, took too long, or printed something else.
    """
    with TemporaryDirectory(prefix="graphtide-bench-") as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )
            end_s = time.monotonic() + RUN_TIMEOUT_S
            peak_bytes = 0
            # wait4 and not Popen.wait: it tells what this process has used.
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if time.monotonic() > end_s:
                    process.kill()
                    os.wait4(process.pid, 0)
                    process.returncode = -9
                    raise PeerError(f"it took more than {RUN_TIMEOUT_S:.0f} s")
                peak_bytes = _peak_bytes(process.pid) or peak_bytes
                time.sleep(_POLL_S)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            text = " ".join(err.read_text(errors="replace").split())
            raise PeerError(f"it ended with code {process.returncode}: …{text[-_SHOWN_CHARS:]}")
        lines = out.read_text(errors="replace").strip()
        try:
            # What libraries print before is not ours.
            answer = json.loads(lines) if lines.startswith("{") else json.loads(lines.splitlines()[-1])
        except (ValueError, IndexError):
            raise PeerError(f"it printed no result, but {lines[-_SHOWN_CHARS:]!r}") from None
    return answer, (usage.ru_utime + usage.ru_stime, peak_bytes)


def _peak_bytes(pid: int) -> int:
    """Return the peak memory of a running process up to now, 0 where that cannot be told.

    `ru_maxrss` would count what the process was before it became this program: a copy of us.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 0 if found is None else int(found.group(1)) * 1024
