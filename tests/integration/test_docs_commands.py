"""Every example of the README and of the documentation runs as it is written, page by page, in an empty folder.

What a page needs to be there is declared here: data, servers, and the words that stand for their addresses. Commands
that go on until they are stopped run beside those that follow, and are stopped at the end of the page.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from kafka import KafkaAdminClient

from forecasting.bench.servers.base import free_port
from infra.errors import StoreError
from infra.steps import format_time
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.kafka.options import Connection
from stream.sources.kafka.sender import KafkaSender
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader
from tests import plain_http
from tests.docs_blocks import Block, blocks_of, missing, pages
from tests.servers.influxdb import InfluxDatabase
from tests.servers.kafka import KafkaServer

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NETWORK = SimulationConfig(years=0.16, events_per_hour=6.0, initial_users=40, communities=4)
# Small models and few forecasts: the commands are what is tried here, not how good they are.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "GRAPHTIDE_FORECASTER__D_MODEL": "16",
    "GRAPHTIDE_FORECASTER__N_LAYERS": "1",
    "GRAPHTIDE_FORECASTER__HEADDIM": "16",
    "GRAPHTIDE_TRAINING__MAX_ITERATIONS": "2",
    "GRAPHTIDE_TRAINING__BUDGET_S": "5",
    "GRAPHTIDE_BACKTEST__ORIGINS": "2",
    "GRAPHTIDE_REPORTS__PATHS": "20",
    "GRAPHTIDE_REPORTS__TARGETS": '{"archive": {"kind": "folder", "path": "archive"}}',
}
# Graphs that are there before the first command of a page.
GRAPHS = {
    "docs/influxdb.md": ("mathoverflow",),
    "docs/api.md": ("toy",),
    "docs/long-forecasts.md": ("town",),
    "docs/stores.md": ("town",),
    "docs/backup.md": ("town",),
    "docs/upgrade.md": ("town",),
    "docs/reports.md": ("town", "harbour"),
}
ENDLESS = re.compile(r"--follow\b|\bgraphtide serve\b|\bschedule run\b|--speed \d")
# What runs in the background of a shell ignores Ctrl-C, and so would its children.
HEEDING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
DEADLINE_S = 240
READY_S = 60


@dataclass
class Place:
    """Where the commands of one page run.

    Attributes:
        folder: the working directory.
        words: what stands in the page, and what is meant here; the longest first.
        environment: of the commands.
    """

    folder: Path
    words: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def here(self, text: str) -> str:
        for word, meant in sorted(self.words.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(word, meant)
        return text


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return the events of a simulated network, one JSON object each."""
    lines = []
    for batch in SimulatedSource(NETWORK).batches(None):
        names = batch.events.interner.names
        columns = (batch.events.src.tolist(), batch.events.dst.tolist(), batch.events.ts_us.tolist())
        for src, dst, ts_us in zip(*columns, strict=True):
            lines.append(json.dumps({"src": names[src], "dst": names[dst], "ts": format_time(ts_us)}).encode())
    return lines


@pytest.fixture
def place(tmp_path: Path) -> Place:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")}
    port = str(free_port())
    return Place(
        tmp_path,
        words={"127.0.0.1:8000": f"127.0.0.1:{port}", "--port 8000": f"--port {port}"},
        environment={**clean, **SETTINGS, "PATH": f"{BIN}:{os.environ['PATH']}", "GRAPHTIDE_API__PORT": port},
    )


def fill(place: Place, page: str, log: list[bytes]) -> None:
    """Write the log, and the graphs that the page begins with."""
    with gzip.open(place.folder / "events.ndjson.gz", "wb") as file:
        file.write(b"".join(line + b"\n" for line in log))
    for graph in GRAPHS.get(page, ()):
        for store in (".graphtide/store.db", "store.db"):
            url = f"sqlite:///{place.folder / store}"
            ingest(SimulatedSource(NETWORK, graph=graph), url, IngestOptions())


def topic_of(place: Place, kafka: KafkaServer, log: list[bytes], *, filled: bool) -> None:
    """Give the page a topic of its own under the name `events`."""
    place.environment["GRAPHTIDE_KAFKA__BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
    name = f"docs-{place.folder.name}"
    if filled:
        kafka.create_topic(name=name)
        with KafkaSender(Connection(bootstrap_servers=kafka.bootstrap_servers)) as sender:
            for line in (*log[:50], b"no event", b"[]", b"{", *log[50:]):
                sender.send(name, line, partition=0)
            sender.flush()
    place.words |= {
        "localhost:9092": kafka.bootstrap_servers,
        "--topics events": f"--topics {name}",
        "--topic events": f"--topic {name}",
        'TOPIC = "events"': f'TOPIC = "{name}"',
    }


@contextmanager
def beside(command: str, place: Place) -> Iterator[None]:
    """Run a command that does not end beside what follows, and stop it as Ctrl-C does."""
    log = place.folder / "beside.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", HEEDING, "bash", "-c", command],
            cwd=place.folder, env=place.environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_ready(command, process, place, log)
        yield
        assert process.poll() is None, f"{command}\nhas ended:\n{log.read_text(errors='replace')}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(READY_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def wait_until_ready(command: str, process: "subprocess.Popen[bytes]", place: Place, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    store = f"sqlite:///{place.folder / '.graphtide' / 'store.db'}"
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{command}\nhas ended:\n{log.read_text(errors='replace')}"
        if "graphtide serve" in command:
            try:
                if plain_http.get(f"http://{place.here('127.0.0.1:8000')}/readyz", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
        elif "--follow" not in command or has_graphs(store):
            return
        time.sleep(0.1)
    pytest.fail(f"{command}\nis not ready after {READY_S} s:\n{log.read_text(errors='replace')}")


def has_graphs(store: str) -> bool:
    try:
        with open_reader(store) as reader:
            return bool(reader.graphs())
    except StoreError:  # it is not there yet
        return False


def run(command: str, place: Place, where: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=place.folder, env=place.environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{where}\n{command}\nends with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def run_block(page: str, block: Block, place: Place, held: ExitStack) -> None:
    where = f"{page}:{block.line}"
    if block.after_ctrl_c:
        held.close()
    if block.file_name:
        (place.folder / block.file_name).write_text(place.here(block.text))
    elif block.language == "python":
        (place.folder / "block.py").write_text(place.here(block.text))
        run("python block.py", place, where)
    else:
        for command, shown in block.commands():
            meant = place.here(command)
            if ENDLESS.search(command.partition(" #")[0]):
                held.enter_context(beside(meant.partition(" #")[0], place))
            else:
                lacking = missing(shown, run(meant, place, where))
                assert not lacking, f"{where}: {command} does not print {lacking}"


WITH_EXAMPLES = {
    page: blocks
    for page, text in pages(ROOT).items()
    if (blocks := [block for block in blocks_of(text) if not (block.not_run or block.run_by)])
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_the_examples_of_a_page_run(page: str, place: Place, log: list[bytes], request: pytest.FixtureRequest) -> None:
    text = "".join(block.text for block in WITH_EXAMPLES[page])
    fill(place, page, log)
    ending: list[Callable[[], object]] = []
    if "kafka" in text or "localhost:9092" in text:
        kafka: KafkaServer = request.getfixturevalue("kafka")
        topic_of(place, kafka, log, filled="KafkaAdminClient" not in text)
        ending.append(lambda: leave_no_topic(place, kafka))
    if "localhost:8086" in text or "store project" in text:
        influxdb: InfluxDatabase = request.getfixturevalue("influxdb")
        address = f"influxdb://{influxdb.url.removeprefix('http://')}/{influxdb.org}/{influxdb.bucket}"
        place.words |= {
            "influxdb://localhost:8086/analytics/graphtide": address,
            "influxdb://localhost:8086/org/db": address,
            "influxdb+https://influx.example.org/analytics/graphtide": address,
        }
        for name in ("url", "org", "bucket", "token"):
            place.environment[f"GRAPHTIDE_INFLUXDB__{name.upper()}"] = getattr(influxdb, name)
    if "redis://localhost:6379/0" in text:
        place.words["redis://localhost:6379/0"] = request.getfixturevalue("redis_url")
    if "postgresql://localhost/graphtide" in text:
        place.words["postgresql://localhost/graphtide"] = request.getfixturevalue("postgres_url")
    with ExitStack() as cleared, ExitStack() as held:
        for call in ending:
            cleared.callback(call)
        for block in WITH_EXAMPLES[page]:
            run_block(page, block, place, held)


def leave_no_topic(place: Place, kafka: KafkaServer) -> None:
    name = place.words["--topics events"].removeprefix("--topics ")
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        if name in admin.list_topics():
            kafka.delete_topic(name)
    finally:
        admin.close()
