"""A store in PostgreSQL and its server: schemas, rights, addresses, connections that are lost."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from infra.errors import StoreError, UsageError
from infra.steps import HOUR_US
from stream.store import open_outbox, open_reader, open_writer
from stream.store.postgres_server import connect, locked_tables
from stream.store.sql.tables import STORE_SCHEMA
from stream.store.sql.writer import SqlWriter
from tests.integration.postgres_cases import add_source, run_behind
from tests.servers.postgres import PostgresServer
from tests.unit.stream.store_contract import close


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


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

    def test_the_server_is_told_to_ask_a_silent_writer(self, url: str) -> None:
        """What a writer had open on a host that is gone would stay its for two hours."""
        with open_writer(url) as writer:
            names = ("idle", "interval", "count")
            found = [writer.database.fetch(f"SHOW tcp_keepalives_{name}")[0][0] for name in names]
        assert found == ["30", "10", "3"]

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
