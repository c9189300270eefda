"""The contract of every store, over PostgreSQL, and what several processes that share one may rely on."""

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest

from infra.errors import StoreError, UsageError
from infra.steps import HOUR_US
from stream.ingest import Ingest, IngestOptions
from stream.store import open_outbox, open_reader, open_writer
from stream.store.copy import compare_stores, copy_store
from stream.store.postgres_server import connect, locked_tables
from stream.store.records import Feeder, PartitionState, SourceState
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sql.writer import SqlWriter
from stream.windows import Clock, Hand
from tests.servers.postgres import PostgresServer
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


def add_source(writer: SqlWriter, name: str = "kafka:events") -> SourceState:
    with writer.transaction():
        return writer.add_source(name, split_by_type=False)


def run_behind(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def wait_for_lock(url: str) -> None:
    """Return when some session waits for another."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2000):
            if connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                return
            connection.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("nobody waits")


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


class TestSchemas:
    """Two stores in two schemas of one database know nothing of each other."""

    @pytest.fixture
    def urls(self, url: str) -> list[str]:
        with psycopg.connect(url, autocommit=True) as connection:
            for name in ("a", "b"):
                connection.execute(f"CREATE SCHEMA {name}".encode())
        return [f"{url}?options=-csearch_path%3D{name}%20-clock_timeout%3D5s" for name in ("a", "b")]

    def test_both_are_written_at_the_same_time(self, urls: list[str]) -> None:
        with open_writer(urls[0]) as one, open_writer(urls[1]) as two:
            assert one.database.number == two.database.number
            for writer in (one, two):
                writer.claim(add_source(writer), ["t-0"])
                with writer.transaction():
                    writer.add_graph("g", HOUR_US)

    def test_each_has_a_projector(self, urls: list[str]) -> None:
        for url in urls:
            open_writer(url).close()
        with open_outbox(urls[0]) as one, open_outbox(urls[1]) as two, open_outbox(urls[1]) as three:
            assert one.elect("influxdb")
            assert two.elect("influxdb")
            assert not three.elect("influxdb")

    def test_who_lives_in_one_does_not_live_in_the_other(self, urls: list[str]) -> None:
        with open_writer(urls[0]) as dead, open_writer(urls[1]) as heir:
            # The second writer of one, which has no second of the same number in the other.
            with open_writer(urls[1]) as other:
                number = other.database.number
                assert heir.database.alive(number)
                assert not dead.database.alive(number)
            # The server ends a session a moment after its client has left.
            for _ in range(2000):
                if not heir.database.alive(number):
                    break
                heir.database.fetch("SELECT pg_sleep(0.005)")
            assert not heir.database.alive(number)

    def test_a_store_is_migrated_while_the_other_is_written(self, urls: list[str]) -> None:
        open_writer(urls[1]).close()
        with open_writer(urls[0]):
            with locked_tables(urls[1]) as (_, schema, _):
                assert schema == STORE_SCHEMA
            with (
                pytest.raises(StoreError, match="another process is writing the store"),
                locked_tables(urls[0]),
            ):
                pass


def enable(writer: SqlWriter) -> None:
    with writer.transaction():
        writer.enable_projection("influxdb")


class TestServer:
    def test_tables_are_made_once_by_whoever_comes_first(self, url: str) -> None:
        writers: list[SqlWriter] = []
        threads = [run_behind(lambda: writers.append(open_writer(url))) for _ in range(4)]
        for thread in threads:
            thread.join(30)
        assert len({writer.database.number for writer in writers}) == 4
        for writer in writers:
            writer.close()

    def test_a_reader_makes_no_store(self, url: str) -> None:
        with pytest.raises(StoreError, match="there is no store") as caught:
            open_reader(url)
        assert "graphtide ingest" in str(caught.value.fix)

    def test_tables_of_others_are_left_alone(self, url: str) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE graphs (x int)")
        with pytest.raises(StoreError, match="tables of another program") as caught:
            open_writer(url)
        assert "search_path" in str(caught.value.fix)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE SCHEMA graphtide")
        with open_writer(f"{url}?options=-csearch_path%3Dgraphtide"):
            pass

    def test_another_schema_is_refused(self, url: str) -> None:
        open_writer(url).close()
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE store_schema SET version = 9")
        for opening in (open_reader, open_writer):
            with pytest.raises(StoreError, match="has schema 9; this version of graphtide keeps schema 2"):
                opening(url)

    @pytest.mark.parametrize("opening", [open_reader, open_writer, open_outbox])
    def test_no_message_holds_the_password(self, opening: Callable[[str], object]) -> None:
        for url, error, message in (
            ("postgresql://me:hush%zz@localhost/db", UsageError, "cannot be read"),
            ("postgresql://me:hush@127.0.0.1:1/db", StoreError, "cannot be reached"),
        ):
            with pytest.raises(error, match=message) as caught:
                opening(url)
            assert "hush" not in str(caught.value)
            assert caught.value.__cause__ is None
            assert caught.value.fix

    def test_a_database_that_is_missing_is_named(self, url: str) -> None:
        with pytest.raises(StoreError, match='database "nowhere" does not exist'):
            open_writer(url.rpartition("/")[0] + "/nowhere")

    def test_connections_to_a_silent_server_are_given_up_unless_the_url_says_otherwise(self, url: str) -> None:
        open_writer(url).close()
        for query, idle_s, silent_ms in (("", 30, 60_000), ("?keepalives_idle=7&tcp_user_timeout=9000", 7, 9000)):
            for read_only in (False, True):
                with (
                    connect(url + query, read_only=read_only) as connection,
                    socket.socket(fileno=os.dup(connection.fileno())) as used,
                ):
                    assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
                    found = [used.getsockopt(socket.IPPROTO_TCP, option) for option in options]
                    assert found == [idle_s, 10, 3, silent_ms]
                    assert connection.info.get_parameters()["connect_timeout"] == "10"
        with connect(f"{url}?connect_timeout=3&keepalives=0", read_only=False) as connection:
            assert connection.info.get_parameters()["connect_timeout"] == "3"
            assert connection.info.get_parameters()["keepalives"] == "0"

    def test_a_lost_server_stops_the_writer_and_the_reader_comes_back(
        self, url: str, postgres_server: PostgresServer
    ) -> None:
        with open_writer(url) as writer:
            with writer.transaction():
                graph = writer.add_graph("g", HOUR_US)
                close(writer, graph, [1, 2])
            with open_reader(url) as reader:
                before = reader.snapshots("g").digest()
                with pytest.raises(StoreError, match="cannot be reached") as caught, writer.transaction():
                    close(writer, graph, [3])
                    postgres_server.kill()
                assert "goes on from the last commit" in str(caught.value.fix)
                with pytest.raises(StoreError, match="cannot be reached"):
                    reader.snapshots("g")
                postgres_server.restart()
                assert reader.snapshots("g").digest() == before
                with pytest.raises(StoreError, match="cannot be reached"), writer.transaction():
                    pass

    def test_a_reader_whose_idle_sessions_were_ended_answers_at_once(self, url: str) -> None:
        with open_writer(url) as writer, writer.transaction():
            close(writer, writer.add_graph("g", HOUR_US), [1, 2])
        with open_reader(url) as reader, psycopg.connect(url, autocommit=True) as other:
            before = reader.snapshots("g").digest()
            for read in (lambda: reader.snapshots("g").digest(), lambda: reader.graph("g") and before):
                ended = other.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert ended.fetchall() == [(True,)]
                assert read() == before

    def test_long_ranges_come_in_pages(self, url: str) -> None:
        n_steps = 20_001
        with open_writer(url) as writer, writer.transaction():
            graph = writer.add_graph("g", HOUR_US)
            close(writer, graph, range(n_steps))
            closed = writer.closed(graph, 5 * HOUR_US)
            assert len(closed.step_start_us) == n_steps - 5
        with open_reader(url) as reader:
            table = reader.snapshots("g")
        assert len(table) == n_steps
        assert np.all(np.diff(table.step_start_us) == HOUR_US)
        assert np.array_equal(table.values[5:], closed.values)

    def test_threads_share_a_reader(self, url: str) -> None:
        with open_writer(url) as writer, writer.transaction():
            close(writer, writer.add_graph("g", HOUR_US), range(9000))
        with open_reader(url) as reader, ThreadPoolExecutor(4) as pool:
            digests = set(pool.map(lambda _: reader.snapshots("g").digest(), range(12)))
        assert len(digests) == 1


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
