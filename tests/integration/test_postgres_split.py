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
from stream.store.records import GraphState
from stream.store.writer import StoreWriter
from tests.integration.postgres_cases import run_behind, wait_for_lock
from tests.integration.test_chaos import metrics_of
from tests.unit.stream.sharing_cases import Claim, Read, ScriptSource
from tests.unit.stream.store_contract import ints, listed, rows

NAMES = ("0", "1", "2")
OPTIONS = IngestOptions(
    out_of_orderness_us=2 * HOUR_US, allowed_lateness_us=3 * HOUR_US, split_graphs=frozenset({"g", "h"})
)
N_EVENTS = 1500


def make_parts(draw: random.Random, *, ids: bool) -> dict[str, list[Event]]:
    """Return the logs of the partitions: two graphs, names that all know, and copies in another partition."""
    parts: dict[str, list[Event]] = {name: [] for name in NAMES}
    for number in range(N_EVENTS):
        hour = number / 20 + draw.uniform(0, 1.5)
        src, dst = (f"n{int(300 * draw.random() ** 2)}" for _ in range(2))
        event = Event(src, dst, int(hour * HOUR_US), graph=draw.choice("gh"), id=f"e{number}" if ids else None)
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
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_writers_at_the_same_time_come_to_what_one_comes_to(
    postgres_url: str, tmp_path: Path, seed: int, ids: bool
) -> None:
    parts = make_parts(random.Random(seed), ids=ids)
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
        assert (told[2] > 0) == ids


def test_a_name_is_not_erased_while_a_graph_is_fed(postgres_url: str) -> None:
    with open_writer(postgres_url) as fed, open_writer(postgres_url) as other:
        script = [Claim(["0"]), Read("0", [Event("a", "b", HOUR_US, graph="g")])]
        Ingest(ScriptSource(script, NAMES), fed, OPTIONS).run()
        graph = other.graph("g")
        assert graph is not None
        with pytest.raises(StoreError, match="another process is filling graph 'g'"), other.transaction():
            other.erase(graph, "a")  # type: ignore[attr-defined]


class TestTurns:
    def test_who_only_adds_waits_for_nobody_who_does(self, postgres_url: str) -> None:
        with open_writer(postgres_url) as one, open_writer(postgres_url) as two:
            with one.transaction():
                (graph,) = one.share(["g"], HOUR_US, alone=True)
            with one.transaction(), two.transaction():
                for number, writer in enumerate((one, two)):
                    assert writer.share(["g"], HOUR_US, alone=False) == [graph]
                    writer.add_open(rows((graph.id, 1, 5, 1 + number)))
            with two.transaction():
                two.share(["g"], HOUR_US, alone=True)
                assert listed(two.take_open(graph, 9 * HOUR_US)) == [(graph.id, 1, 5, 1), (graph.id, 1, 5, 2)]

    def test_who_does_more_waits_for_all(self, postgres_url: str) -> None:
        with open_writer(postgres_url) as one, open_writer(postgres_url) as two:
            seen: list[GraphState] = []

            def take() -> None:
                with two.transaction():
                    two.share(["g"], HOUR_US, alone=False)
                    two.unshare()
                    seen.extend(two.share(["g"], HOUR_US, alone=True))

            with one.transaction():
                (graph,) = one.share(["g"], HOUR_US, alone=True)
                graph.late = 7
                one.save_graphs([graph])
                thread = run_behind(take)
                wait_for_lock(postgres_url)
            thread.join(30)
            assert seen == [graph]

    def test_a_name_that_both_add_has_one_id(self, postgres_url: str) -> None:
        with open_writer(postgres_url) as one, open_writer(postgres_url) as two:
            with one.transaction():
                (graph,) = one.share(["g"], HOUR_US, alone=True)
            ids: list[list[int]] = []

            def add(writer: StoreWriter, names: list[str]) -> None:
                writer.share(["g"], HOUR_US, alone=False)
                ids.append(writer.node_ids(ints(graph.id, graph.id, graph.id), ints(0, 1, 2), names).tolist())

            def add_behind() -> None:
                with two.transaction():
                    add(two, ["c", "a", "b"])

            with one.transaction():
                add(one, ["a", "b", "d"])
                thread = run_behind(add_behind)
                wait_for_lock(postgres_url)
            thread.join(30)
            (first, second) = ids
            assert second[1:] == first[:2]
            assert len({*first, *second}) == 4
