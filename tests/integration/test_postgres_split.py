"""Writers that feed the same graphs over PostgreSQL at the same time, each in a thread with a connection of its own."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from infra.errors import StoreError
from infra.steps import HOUR_US
from stream.events import Event
from stream.ingest import Ingest, IngestOptions
from stream.store import open_reader, open_writer
from tests.integration.test_chaos import metrics_of
from tests.unit.stream.sharing_cases import Claim, Read, ScriptSource

NAMES = ("0", "1", "2")
OPTIONS = IngestOptions(
    out_of_orderness_us=2 * HOUR_US, allowed_lateness_us=3 * HOUR_US, split_graphs=frozenset({"g", "h"})
)
N_EVENTS = 1500


def make_parts(draw: random.Random) -> dict[str, list[Event]]:
    """Return the logs of the partitions: two graphs, names that all know, and copies in another partition."""
    parts: dict[str, list[Event]] = {name: [] for name in NAMES}
    for number in range(N_EVENTS):
        hour = number / 20 + draw.uniform(0, 1.5)
        src, dst = (f"n{int(300 * draw.random() ** 2)}" for _ in range(2))
        event = Event(src, dst, int(hour * HOUR_US), graph=draw.choice("gh"), id=f"e{number}")
        for name in draw.sample(NAMES, 2 if draw.random() < 0.05 else 1):
            parts[name].append(event)
    for events in parts.values():
        events += [Event("z", "z", 300 * HOUR_US, graph=graph) for graph in "gh"]
    return parts


def feed(url: str, parts: dict[str, list[Event]], names: tuple[str, ...], size: int) -> None:
    script = [Claim(names)] + [
        Read(name, parts[name][at : at + size])
        for at in range(0, max(map(len, parts.values())), size)
        for name in names
        if at < len(parts[name])
    ]
    with open_writer(url) as writer:
        Ingest(ScriptSource(script, NAMES), writer, OPTIONS).run()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
def test_writers_at_the_same_time_come_to_what_one_comes_to(postgres_url: str, tmp_path: Path, seed: int) -> None:
    parts = make_parts(random.Random(seed))
    open_writer(postgres_url).close()
    with ThreadPoolExecutor(len(NAMES)) as threads:
        running = [threads.submit(feed, postgres_url, parts, (name,), 40) for name in NAMES]
    for each in running:
        each.result()
    alone = f"sqlite:///{tmp_path / 'alone.db'}"
    feed(alone, parts, NAMES, 40)
    with open_reader(postgres_url) as shared, open_reader(alone) as one:
        assert metrics_of(shared).keys() == {"g", "h"}
        assert metrics_of(shared) == metrics_of(one)
    counters = "SELECT sum(events), sum(late), sum(duplicates) FROM partitions"
    with psycopg.connect(postgres_url) as connection:
        told = connection.execute(counters).fetchone()
    with open_writer(alone) as writer:
        assert told == writer.database.fetch(counters)[0]  # type: ignore[attr-defined]
        assert told is not None
        assert told[2] > 0


def test_a_name_is_not_erased_while_a_graph_is_fed(postgres_url: str) -> None:
    with open_writer(postgres_url) as fed, open_writer(postgres_url) as other:
        script = [Claim(["0"]), Read("0", [Event("a", "b", HOUR_US, graph="g")])]
        Ingest(ScriptSource(script, NAMES), fed, OPTIONS).run()
        graph = other.graph("g")
        assert graph is not None
        with pytest.raises(StoreError, match="another process is filling graph 'g'"), other.transaction():
            other.erase(graph, "a")  # type: ignore[attr-defined]
