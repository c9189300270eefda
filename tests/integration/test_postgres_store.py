"""The contract of every store, over PostgreSQL, and what several processes that share one may rely on."""

from pathlib import Path

import numpy as np
import psycopg
import pytest

from infra.errors import StoreError
from infra.steps import HOUR_US
from stream.ingest import Ingest, IngestOptions
from stream.store import open_outbox, open_reader, open_writer
from stream.store.copy import compare_stores, copy_store
from stream.store.records import Feeder, PartitionState
from stream.windows import Clock, Hand
from tests.integration.postgres_cases import add_source, enable, run_behind, wait_for_lock
from tests.unit.stream import copy_cases, outgoing_contract, store_contract
from tests.unit.stream.ingest_cases import at
from tests.unit.stream.sharing_cases import Claim, Read, ScriptSource
from tests.unit.stream.store_contract import close, ints, listed, rows


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


class TestSources(store_contract.SourceContract):
    pass


class TestDictionary(store_contract.DictionaryContract):
    pass


class TestSteps(store_contract.StepContract):
    pass


class TestEventIds(store_contract.EventIdContract):
    pass


class TestOutbox(outgoing_contract.OutboxContract):
    pass


class TestDeadLetters(outgoing_contract.DeadLetterContract):
    pass


class TestErasure(outgoing_contract.ErasureContract):
    pass


class TestSharing:
    """Several writers of one store, each on a connection of its own as in a process of its own."""

    def test_a_source_is_one_for_all(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two:
            assert add_source(one) == add_source(two)

    def test_partitions_are_handed_over(self, url: str) -> None:
        state = PartitionState(Clock(5, 9), {"offset": 7}, 4)
        with open_writer(url) as one, open_writer(url) as two:
            source = add_source(one)
            one.claim(source, ["t-0", "t-1"])
            with one.transaction():
                one.save_partitions(source, {"t-0": state})
                graph = one.add_graph("g", HOUR_US)
                one.link(source, "t-0", graph)
                names = one.node_ids(ints(graph.id), ints(0), ["a"])
                one.add_open(rows((graph.id, 1, 5, 1)))
            assert [feeder.elsewhere for feeder in one.feeders(graph)] == [False]
            assert [feeder.elsewhere for feeder in two.feeders(graph)] == [True]
            one.release(source, ["t-0"])
            assert [feeder.elsewhere for feeder in two.feeders(graph)] == [False]
            assert two.claim(source, ["t-0"]) == {"t-0": state}
            with one.transaction():  # it still has t-1
                one.save_partitions(source, {"t-1": state})
            with two.transaction():
                assert two.graphs_of(source, ["t-0"]) == [graph]
                assert two.node_ids(ints(graph.id), ints(3), ["", "", "", "a"]) == names
                assert listed(two.take_open(graph, 9 * HOUR_US)) == [(graph.id, 1, 5, 1)]
                two.add_open(rows((graph.id, 2, 6, 1)))
            two.release(source, ["t-0"])
            one.claim(source, ["t-0"])
            with one.transaction():
                assert listed(one.take_open(graph, 9 * HOUR_US)) == [(graph.id, 2, 6, 1)]

    def test_a_zombie_is_fenced(self, url: str) -> None:
        with open_writer(url) as zombie, open_writer(url) as heir:
            source = add_source(zombie)
            zombie.claim(source, ["t-0", "t-1"])
            heir.claim(source, ["t-1"])
            for _ in range(2):
                with pytest.raises(StoreError, match="taken over partition 't-1'") as caught, zombie.transaction():
                    zombie.add_graph("g", HOUR_US)
                assert caught.value.fix
            assert zombie.graph("g") is None
            # What it gives up cannot take anything from its heir.
            zombie.release(source, ["t-1", "t-0"])
            with heir.transaction():
                heir.add_graph("g", HOUR_US)
            zombie.claim(source, ["t-0"])
            with zombie.transaction():
                zombie.add_graph("h", HOUR_US)

    def test_a_claim_waits_for_the_commit_it_cuts_off(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two:
            source = add_source(one)
            one.claim(source, ["t-0"])
            claimed: list[dict[str, PartitionState]] = []
            with one.transaction():
                thread = run_behind(lambda: claimed.append(two.claim(source, ["t-0"])))
                wait_for_lock(url)
                state = PartitionState(position={"offset": 3})
                one.save_partitions(source, {"t-0": state})
            thread.join(30)
            assert claimed == [{"t-0": state}]
            with pytest.raises(StoreError, match="taken over"), one.transaction():
                pass

    def test_partitions_of_a_writer_that_died_are_free(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two:
            source = add_source(one)
            one.claim(source, ["t-0"])
            with one.transaction():
                graph = one.add_graph("g", HOUR_US)
                one.link(source, "t-0", graph)
            with psycopg.connect(url, autocommit=True) as connection:
                pid = one.database._connection.info.backend_pid  # type: ignore[attr-defined]
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            with pytest.raises(StoreError, match="cannot be reached"), one.transaction():
                pass
            assert [feeder.elsewhere for feeder in two.feeders(graph)] == [False]

    def test_one_of_two_that_add_a_graph_is_refused(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two:
            failed: list[StoreError] = []

            def add() -> None:
                with two.transaction():
                    assert two.graph("g") is None
                    try:
                        two.add_graph("g", HOUR_US)
                    except StoreError as error:
                        failed.append(error)

            source = add_source(one)
            with one.transaction():
                one.link(source, "t-0", one.add_graph("g", HOUR_US))
                thread = run_behind(add)
                wait_for_lock(url)
            thread.join(30)
            assert "two processes read" in failed[0].message
            assert "key the records by graph" in str(failed[0].fix)

    def test_who_asks_for_feeders_sees_those_of_the_one_before(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two:
            source = add_source(one)
            with one.transaction():
                graph = one.add_graph("g", HOUR_US)
            one.claim(source, ["t-0"])
            two.claim(source, ["t-1"])
            seen: list[list[Feeder]] = []

            def ask() -> None:
                with two.transaction():
                    seen.append(two.feeders(graph))

            with one.transaction():
                assert one.feeders(graph) == []
                thread = run_behind(ask)
                wait_for_lock(url)
                one.link(source, "t-0", graph)
            thread.join(30)
            assert seen == [[Feeder(source.name, ended=False, partition="t-0", elsewhere=True)]]

    def test_node_ids_are_unique_over_all_writers(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two:
            ids: list[int] = []
            for turn in range(3):
                for writer, name in ((one, "g"), (two, "h")):
                    with writer.transaction():
                        graph = writer.graph(name) or writer.add_graph(name, HOUR_US)
                        names = [f"{turn}-{number}" for number in range(700)]
                        own = writer.node_ids(np.full(700, graph.id), np.arange(700), names)
                        assert np.all(np.diff(own) > 0)
                        ids += own.tolist()
                        writer.forget_codes()
            assert len(set(ids)) == len(ids) == 4200

    def test_enabling_a_projection_misses_no_commit(self, url: str) -> None:
        with open_writer(url) as one, open_writer(url) as two, open_outbox(url) as outbox:
            with one.transaction():
                graph = one.add_graph("g", HOUR_US)
                close(one, graph, [1, 2])
                # Only now: one that came first would have nothing to wait for.
                thread = run_behind(lambda: enable(two))
                wait_for_lock(url)
            thread.join(30)
            with one.transaction():
                close(one, graph, [3])
            assert sum(change.n_steps for change in outbox.pending("influxdb", 9)) == 3

    def test_one_projects_at_a_time(self, url: str) -> None:
        with open_writer(url), open_outbox(url) as one, open_outbox(url) as two:
            assert one.elect("influxdb")
            assert one.elect("influxdb")
            assert not two.elect("influxdb")
            assert two.elect("other")
            one.close()
            assert two.elect("influxdb")


def test_a_store_moves_to_postgres_and_back(url: str, tmp_path: Path) -> None:
    first, last = (f"sqlite:///{tmp_path / name}" for name in ("first.db", "last.db"))
    copy_cases.fill(first)
    for source, target in ((first, url), (url, last)):
        with open_reader(source) as reader, open_writer(target) as writer:
            assert copy_store(reader, writer).whole
        with open_reader(first) as one, open_reader(target) as two:
            assert [comparison.difference for comparison in compare_stores(one, two)] == [None, None]
    for target in (url, last):
        copy_cases.check_whole(target)


class TestFinality:
    """What is final waits for partitions that another process had and nobody reads now."""

    def test_a_partition_whose_reader_died_is_waited_for(self, url: str) -> None:
        both = ("0", "1")
        fed = [Claim(both), Read("0", [at(1, "a", "b")]), Read("1", [at(1, "a", "b")]), Read("1")]
        with open_writer(url) as writer:
            Ingest(ScriptSource(fed, both), writer, IngestOptions()).run()
            pid = writer.database._connection.info.backend_pid  # type: ignore[attr-defined]
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with open_writer(url) as writer:
            alone = [Claim(["0"]), Read("0", [at(900, "a", "b")])]
            Ingest(ScriptSource(alone, both), writer, IngestOptions()).run()
            with open_reader(url) as reader:
                assert reader.graph("g").final_us is None
            heir = Ingest(
                ScriptSource([Claim(both), Read("1", [at(2, "x", "y"), at(901, "x", "y")])], both),
                writer,
                IngestOptions(),
            )
            heir.run()
            assert heir.result().late == 0
        with open_reader(url) as reader:
            assert reader.graph("g").final_us == 900 * HOUR_US

    def test_how_far_partitions_are_read_is_told_to_all(self, url: str) -> None:
        state = PartitionState(Clock(5, 9), {"offset": 7}, idle=True)
        with open_writer(url) as one, open_writer(url) as two:
            source = add_source(one)
            one.claim(source, ["t-0", "t-1"])
            with one.transaction():
                one.save_partitions(source, {"t-0": state})
            told = {"t-0": Hand(Clock(5, 9), idle=True), "t-1": Hand(Clock(), idle=False)}
            assert one.hands(source) == two.hands(source) == told
            one.release(source, ["t-0"])
            assert one.hands(source) == two.hands(source) == told | {"t-0": Hand(Clock(5, 9), idle=False)}
