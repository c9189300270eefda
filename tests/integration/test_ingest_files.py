"""Files, followed files and the store together."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.errors import StoreError
from infra.steps import HOUR_US
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.progress import IngestResult
from stream.sources.files import FileSource, FollowSource
from stream.store import open_reader

REPOSITORY = Path(__file__).parents[2]
GRAPH = DecodeOptions(graph="g")


def write_lines(path: Path, hours: range, mode: str = "a") -> None:
    with path.open(mode) as file:
        for hour in hours:
            file.write(
                json.dumps({"src": f"n{hour % 7}", "dst": f"n{hour % 3}", "ts": 1_600_000_000 + 3600 * hour}) + "\n"
            )


def follow_to_the_end(log: Path, url: str) -> IngestResult:
    """Follow a log until nothing more is there."""
    polls = 0

    def stop() -> bool:
        return polls > 0

    def sleep(_: float) -> None:
        nonlocal polls
        polls += 1

    return ingest(FollowSource(log, GRAPH, stop=stop, sleep=sleep), url, IngestOptions())


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_a_followed_log_goes_on_where_it_stopped(tmp_path: Path, url: str) -> None:
    log = tmp_path / "events.ndjson"
    for hours in (range(40), range(40, 41), range(41, 90)):
        write_lines(log, hours)
        result = follow_to_the_end(log, url)
    assert (result.events, result.late, result.ended) == (90, 0, False)
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    ingest(FileSource(log, GRAPH), whole, IngestOptions())
    with open_reader(url) as followed, open_reader(whole) as bounded:
        # The last step of a followed log stays open.
        expected = bounded.snapshots("g", end_us=bounded.graph("g").last_step_us)
        assert followed.snapshots("g").digest() == expected.digest()
        assert len(expected) == 89


def test_a_log_is_not_counted_both_followed_and_whole(tmp_path: Path, url: str) -> None:
    log = tmp_path / "events.ndjson"
    write_lines(log, range(40))
    follow_to_the_end(log, url)
    with pytest.raises(StoreError, match="still being filled from follow:"):
        ingest(FileSource(log, GRAPH), url, IngestOptions())

    other = f"sqlite:///{tmp_path / 'other.db'}"
    ingest(FileSource(log, GRAPH), other, IngestOptions())
    with pytest.raises(StoreError, match="filled from file:"):
        follow_to_the_end(log, other)
    with open_reader(other) as reader:
        assert reader.graph("g").events == 40


def test_a_log_that_grew_is_gone_on_with(tmp_path: Path, url: str) -> None:
    log = tmp_path / "events.ndjson"
    write_lines(log, range(40))
    ingest(FileSource(log, GRAPH), url, IngestOptions())
    write_lines(log, range(40, 50))
    assert ingest(FileSource(log, GRAPH), url, IngestOptions()).graphs[0].events == 50
    write_lines(log, range(50, 60), mode="w")
    assert ingest(FileSource(log, GRAPH), url, IngestOptions()).graphs[0].events == 60
    write_lines(log, range(45, 70), mode="w")
    with pytest.raises(StoreError, match="this source begins before that"):
        ingest(FileSource(log, GRAPH), url, IngestOptions())


def test_math_overflow_by_the_hour(data_dir: Path, require: Callable[[str, bool, str], None], url: str) -> None:
    log = data_dir / "sx-mathoverflow" / "sx-mathoverflow.txt.gz"
    require("data", log.is_file(), f"there is no {log}")
    code = (
        "import json, re, sys\n"
        "from pathlib import Path\n"
        "from stream.ingest import IngestOptions, ingest\n"
        "from stream.sources.files import FileSource\n"
        "runs = [ingest(FileSource(Path(sys.argv[1])), sys.argv[2], IngestOptions()) for _ in range(2)]\n"
        "graph = runs[0].graphs[0]\n"
        # Not getrusage: its peak includes that of the process that forked this one.
        "peak_kb = int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "print(json.dumps({'events': graph.events, 'nodes': graph.nodes, 'edges': graph.edges,\n"
        "    'snapshots': graph.snapshots, 'unchanged': [run.unchanged for run in runs],\n"
        "    'rss_mb': peak_kb / 1024, 'torch': 'torch' in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(log), url],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said.pop("rss_mb") < 250
    assert said == {
        "events": 506_550,
        "nodes": 24_818,
        "edges": 239_978,
        "snapshots": 56_410,
        "unchanged": [False, True],
        "torch": False,
    }
    with open_reader(url) as reader:
        table = reader.snapshots("default", metrics=("events", "new_nodes", "new_edges", "total_nodes", "total_edges"))
    assert np.all(np.diff(table.step_start_us) == HOUR_US)
    assert table.values[:, :3].sum(axis=0).tolist() == [506_550, 24_818, 239_978]
    assert table.values[-1, 3:].tolist() == [24_818, 239_978]
    assert np.array_equal(np.cumsum(table.values[:, 1:3], axis=0), table.values[:, 3:])
