"""What every store of record promises, as tests: a subclass gives the fixture `url` of an empty store."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import StoreError
from infra.schema import METRIC_NAMES
from infra.steps import HOUR_US
from stream.decoders.records.base import Record
from stream.events import IntArray, Reject
from stream.sources.base import ReadBefore
from stream.store import open_reader, open_writer
from stream.store.records import PAIR_BITS, EdgeRows, Feeder, GraphState, PartitionState, SourceState
from stream.store.sql import dictionary, open_steps
from stream.store.sql.writer import SqlWriter
from stream.store.writer import Closed, StoreWriter
from stream.windows import NEVER_US, Clock

FIRST_STEPS = st.dictionaries(st.integers(1, 12), st.integers(0, 40), max_size=8)
NOW_US = 1_700_000_000_000_000


def ints(*values: int) -> IntArray:
    return np.array(values, dtype=np.int64)


def rows(*edges: tuple[int, int, int, int]) -> EdgeRows:
    """Return edges given as (graph, hour, pair, events)."""
    columns = np.array(edges, dtype=np.int64).reshape(-1, 4).T
    return EdgeRows(columns[0], columns[1] * HOUR_US, columns[2], columns[3])


def listed(edges: EdgeRows) -> list[tuple[int, int, int, int]]:
    """Return edges as `rows` takes them, in order."""
    hours = edges.step_start_us // HOUR_US
    columns = (column.tolist() for column in (edges.graph_id, hours, edges.pair, edges.events))
    return sorted(zip(*columns, strict=True))


def metrics(n_steps: int, first: int = 0) -> dict[str, np.ndarray]:
    """Return made-up values [n] of every metric; whole numbers and, for shares, fractions."""
    step = np.arange(n_steps, dtype=np.float64) + first
    return {
        name: step / 128 if name in ("reciprocity", "transitivity") else (step + number) % (number + 2) // (number + 1)
        if name.endswith(("gini", "share")) else step * number
        for number, name in enumerate(METRIC_NAMES)
    }  # fmt: skip


def table_of(values: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([values[name] for name in METRIC_NAMES], axis=1)


def begin(writer: StoreWriter, name: str) -> GraphState:
    """Add a graph that a source feeds, so that readers see it."""
    graph = writer.add_graph(name, HOUR_US)
    writer.link(writer.source("file") or writer.add_source("file", split_by_type=False), "", graph)
    return graph


def close(writer: SqlWriter, graph: GraphState, hours: Sequence[int], edges: EdgeRows | None = None) -> None:
    """Write snapshots of consecutive hours that follow what is closed."""
    n_steps = len(hours)
    starts = np.array(hours, dtype=np.int64) * HOUR_US
    writer.add_snapshots(np.full(n_steps, graph.id), starts, metrics(n_steps, hours[0]), edges or rows())
    graph.first_step_us = int(starts[0]) if graph.first_step_us is None else graph.first_step_us
    graph.next_step_us = int(starts[-1]) + HOUR_US
    graph.snapshots += n_steps
    writer.save_graphs([graph])


class StoreContract:
    @pytest.fixture
    def writer(self, url: str) -> Iterator[SqlWriter]:
        with open_writer(url, now_us=lambda: NOW_US) as writer:
            yield writer

    @pytest.fixture
    def source(self, writer: SqlWriter) -> SourceState:
        with writer.transaction():
            return writer.add_source("kafka:events", split_by_type=False)

    @pytest.fixture
    def graph(self, writer: SqlWriter, source: SourceState) -> GraphState:
        writer.claim(source, ["t-0"])
        with writer.transaction():
            graph = writer.add_graph("g", HOUR_US)
            writer.link(source, "t-0", graph)
        return graph


class SourceContract(StoreContract):
    def test_a_source_is_added_once(self, writer: SqlWriter) -> None:
        assert writer.source("one") is None
        with writer.transaction():
            added = writer.add_source("one", split_by_type=True)
            assert writer.add_source("one", split_by_type=True) == added
        assert writer.source("one") == added == SourceState(added.id, "one", split_by_type=True)
        with writer.transaction():
            writer.end_source(added)
        assert added.ended
        assert writer.source("one") == added

    def test_claims_return_what_was_saved(self, url: str, writer: SqlWriter, source: SourceState) -> None:
        assert writer.claim(source, ["t-1", "t-0"]) == {"t-0": PartitionState(), "t-1": PartitionState()}
        state = PartitionState(Clock(5, 9), {"offset": 7, "epoch": "x", "end": True}, 4, 3, 2, 1, idle=True)
        with writer.transaction():
            writer.save_partitions(source, {"t-0": state})
        writer.release(source, ["t-0", "t-1"])
        # That nothing comes, only who listens can tell.
        state.idle = False
        assert writer.claim(source, ["t-0"]) == {"t-0": state}
        writer.close()
        with open_writer(url) as again:
            found = again.source(source.name)
            assert found is not None
            assert again.claim(found, ["t-0", "t-2"]) == {"t-0": state, "t-2": PartitionState()}

    def test_what_was_read_of_files_is_found_by_the_beginning_of_its_name(
        self, writer: SqlWriter, source: SourceState
    ) -> None:
        with writer.transaction():
            names = ("file:a", "file:b", "file:c", "filed")
            ended, read, unread, other = (writer.add_source(name, split_by_type=False) for name in names)
        for each in (ended, read, unread, other, source):
            writer.claim(each, [""])
        with writer.transaction():
            for each in (ended, read, other, source):
                writer.save_partitions(each, {"": PartitionState(position={"row": each.id})})
            writer.end_source(ended)
        assert writer.read_before("file:") == [
            ReadBefore("file:a", ended=True, position={"row": ended.id}),
            ReadBefore("file:b", ended=False, position={"row": read.id}),
        ]

    def test_totals_add_up_all_partitions(self, writer: SqlWriter, source: SourceState) -> None:
        assert writer.totals(source) == PartitionState()
        writer.claim(source, ["a", "b"])
        with writer.transaction():
            writer.save_partitions(
                source,
                {
                    "a": PartitionState(Clock(5, 9), {"offset": 1}, 40, 3, 2, 1, idle=True),
                    "b": PartitionState(Clock(7, 8), None, 2, 1, 1, 1),
                },
            )
        assert writer.totals(source) == PartitionState(Clock(5, 9), None, 42, 4, 3, 2, idle=False)

    def test_graphs_and_what_feeds_them(self, writer: SqlWriter, source: SourceState) -> None:
        assert writer.graph("zoo") is None
        with writer.transaction():
            zoo, ant = writer.add_graph("zoo", HOUR_US), writer.add_graph("ant", 60)
            for partition, graph in (("t-1", zoo), ("t-0", zoo), ("t-1", ant), ("t-1", zoo)):
                writer.link(source, partition, graph)
            file = writer.add_source("file", split_by_type=False)
            writer.end_source(file)
            writer.link(file, "", zoo)
        assert writer.graphs_of(source) == [ant, zoo]
        assert writer.graphs_of(source, ["t-0", "t-7"]) == [zoo]
        assert writer.graphs_of(source, []) == []
        assert writer.feeders(zoo) == [
            Feeder(source.name, ended=False, partition="t-1", elsewhere=False),
            Feeder(source.name, ended=False, partition="t-0", elsewhere=False),
            Feeder("file", ended=True, partition="", elsewhere=False),
        ]
        saved = GraphState(zoo.id, "zoo", HOUR_US, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        with writer.transaction():
            writer.save_graphs([saved])
        assert writer.graph("zoo") == saved
        assert writer.graph("ant") == ant == GraphState(ant.id, "ant", 60)

    def test_a_graph_that_nothing_feeds_is_seen_by_nobody(
        self, url: str, writer: SqlWriter, source: SourceState
    ) -> None:
        with writer.transaction():
            graph = writer.add_graph("early", HOUR_US)
            graph.late = 3
            writer.save_graphs([graph])
        with open_reader(url) as reader:
            assert reader.graphs() == []
            with pytest.raises(StoreError, match="the store is empty"):
                reader.graph("early")
            # It is still what it was, but for the step size of who adds it next.
            with writer.transaction():
                added = writer.add_graph("early", 60)
                assert added == GraphState(graph.id, "early", 60, late=3)
                assert writer.share(["early"], HOUR_US, alone=True) == [writer.graph("early")]
                graph = writer.add_graph("early", HOUR_US)
                writer.link(source, "t-0", graph)
            assert [(info.name, info.step_us, info.late) for info in reader.graphs()] == [("early", HOUR_US, 3)]
            assert reader.graph("early").late == 3
        with writer.transaction():
            assert writer.share(["early"], 60, alone=True) == [graph]
            with pytest.raises(StoreError, match="two processes read"):
                writer.add_graph("early", HOUR_US)

    def test_a_failed_transaction_leaves_nothing(self, writer: SqlWriter, source: SourceState) -> None:
        with pytest.raises(ZeroDivisionError), writer.transaction():
            writer.add_graph("new", HOUR_US)
            writer.node_ids(ints(1), ints(0), ["lost"])
            writer.set_first_steps(ints(1), ints(0), ints(5), ints(0))
            writer.add_open(rows((1, 1, 5, 1)))
            _ = 1 / 0
        assert writer.graph("new") is None
        assert writer.new_nodes(ints(1)).tolist() == writer.new_edges(ints(5)).tolist() == [True]
        with writer.transaction():
            graph = writer.add_graph("new", HOUR_US)
            assert len(writer.take_open(graph, 10 * HOUR_US)) == 0

    def test_rejects_are_sampled_but_whole_records_are_all_kept(self, writer: SqlWriter, source: SourceState) -> None:
        plain = [Reject(f"line {n}", "a\0b", "src is empty \udcff", "") for n in range(3)]
        kept = [Reject(f"line {n}", "a\\x00b", "src is empty \\udcff") for n in range(3)]
        headers = (("h", b"\xff"), ("h", b""))
        records = [Record(b"v\0\xff", b"k", headers, "t", 3, offset, 8) for offset in range(3)]
        whole = [Reject("t-0", "v", "late", "TRANSFORMATION", record) for record in records]
        with writer.transaction():
            writer.add_rejects(source, [plain[0], whole[0], plain[1], *whole[1:]], keep=2)
            writer.add_rejects(source, [plain[2], Reject("", "", "", "", Record(None))], keep=2)
        assert writer.rejects_of(source) == kept[:2]
        with writer.transaction():
            writer.add_rejects(source, plain[2:], keep=3)
        assert writer.rejects_of(source) == kept


class DictionaryContract(StoreContract):
    def test_a_name_has_one_id_in_each_graph(self, writer: SqlWriter, graph: GraphState) -> None:
        names = ["a", "b", "c\u00e9", "d%s{}?"]
        with writer.transaction():
            other = writer.add_graph("h", HOUR_US)
            first = writer.node_ids(ints(*[graph.id] * 3), ints(1, 0, 1), names)
            assert first[0] == first[2] < first[1]
            second = writer.node_ids(ints(graph.id, other.id, graph.id, other.id), ints(2, 1, 3, 1), names)
            assert second[1] == second[3]
            assert len({*first.tolist(), *second.tolist()}) == 5
        writer.forget_codes()
        with writer.transaction():
            again = writer.node_ids(ints(*[graph.id] * 4), ints(0, 1, 2, 3), ["c\u00e9", "new", "b", "d%s{}?"])
        assert again[[0, 2, 3]].tolist() == [second[0], first[0], second[2]]
        assert again[1] > second.max()

    def test_names_are_kept_as_they_are(self, writer: SqlWriter, graph: GraphState) -> None:
        names = ["12", "null", '"', "\\u0041", "'); --", "\U0001f600", "\u00e9", "e\u0301", "[1]", "true", "B", "a"]
        code = np.arange(len(names))[::-1]
        with writer.transaction():
            ids = writer.node_ids(np.full(len(names), graph.id), code, names)
        assert (np.diff(ids) > 0).all()
        stored = writer.database.fetch("SELECT id, name FROM nodes ORDER BY id")
        assert [tuple(row) for row in stored] == [(int(id_), names[at]) for id_, at in zip(ids, code, strict=True)]

    # Every example ends with a rollback, so that the fixture and the class that runs it do not matter.
    @settings(
        max_examples=20,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(st.lists(st.tuples(FIRST_STEPS, FIRST_STEPS), max_size=6), st.sampled_from([3, 10**6]))
    def test_first_steps_are_kept_and_can_be_changed(
        self, writer: SqlWriter, batches: list[tuple[dict[int, int], dict[int, int]]], known: int
    ) -> None:
        """Whatever the caches hold, the answers are those of two dicts."""
        asked = np.arange(14, dtype=np.int64)
        nodes: dict[int, int] = {}
        pairs: dict[int, int] = {}
        with pytest.MonkeyPatch.context() as patch:
            for name in ("KNOWN_NAMES", "KNOWN_NODES", "KNOWN_EDGES"):
                patch.setattr(dictionary, name, known)
            writer = SqlWriter(writer.database)
        with pytest.raises(KeyError), writer.transaction():
            for new_nodes, new_pairs in batches:
                writer.set_first_steps(
                    *(ints(*column) for column in (new_nodes, new_nodes.values())),
                    *(ints(*column) for column in (new_pairs, new_pairs.values())),
                )
                nodes |= new_nodes
                pairs |= new_pairs
                assert writer.new_nodes(asked).tolist() == [node not in nodes for node in range(14)]
                assert writer.new_edges(asked).tolist() == [pair not in pairs for pair in range(14)]
                of_nodes, of_pairs = writer.first_steps(nodes=asked, pairs=asked[::-1])
                assert of_nodes.tolist() == [nodes.get(node, NEVER_US) for node in range(14)]
                assert of_pairs.tolist() == [pairs.get(pair, NEVER_US) for pair in reversed(range(14))]
            raise KeyError  # the next example begins with an empty store

    def test_what_was_seen_is_known_to_the_next_writer(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        with writer.transaction():
            ids = writer.node_ids(ints(graph.id, graph.id), ints(0, 1), ["a", "b"])
            writer.set_first_steps(ids[:1], ints(5), ids[:1] << PAIR_BITS | 1, ints(6))
        writer.close()
        with open_writer(url) as again:
            assert again.new_nodes(ids).tolist() == [False, True]
            assert again.new_edges(ints(7, ids[0] << PAIR_BITS | 1)).tolist() == [True, False]
            with again.transaction():
                more = again.node_ids(ints(*[graph.id] * 3), ints(2, 1, 0), ["a", "b", "c"])
        assert more[1:].tolist() == ids[::-1].tolist()
        assert more[0] > ids.max()


class StepContract(StoreContract):
    def test_open_events_are_taken_once(self, writer: SqlWriter, graph: GraphState) -> None:
        g = graph.id
        with writer.transaction():
            other = writer.add_graph("h", HOUR_US)
            writer.add_open(rows((g, 1, 5, 1), (g, 1, 7, 2), (g, 2, 5, 1), (other.id, 1, 9, 1)))
            writer.add_open(rows((g, 3, 5, 1), (g, 1, 5, 4)))  # in any order
        with writer.transaction():
            assert len(writer.take_open(graph, HOUR_US)) == 0
            taken = EdgeRows.merge([writer.take_open(graph, 3 * HOUR_US)])
            assert listed(taken) == [(g, 1, 5, 5), (g, 1, 7, 2), (g, 2, 5, 1)]
            assert len(writer.take_open(graph, 3 * HOUR_US)) == 0
        with writer.transaction():
            assert listed(writer.take_open(graph, 9 * HOUR_US)) == [(g, 3, 5, 1)]
            assert listed(writer.take_open(other, 9 * HOUR_US)) == [(other.id, 1, 9, 1)]

    @pytest.mark.parametrize("held_rows", [0, 3, 10**6])
    def test_open_events_survive_rollback_and_restart(
        self, url: str, writer: SqlWriter, graph: GraphState, held_rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(open_steps, "HELD_ROWS", held_rows)
        g = graph.id
        with writer.transaction():
            writer.add_open(rows((g, 1, 5, 1), (g, 2, 5, 300), (g, 2, 1 << 40, 1)))
        with pytest.raises(ZeroDivisionError), writer.transaction():
            writer.take_open(graph, 2 * HOUR_US)
            writer.add_open(rows((g, 2, 6, 1)))
            _ = 1 / 0
        with writer.transaction():
            writer.add_open(rows((g, 2, 8, 1)))
            assert listed(writer.take_open(graph, 2 * HOUR_US)) == [(g, 1, 5, 1)]
        writer.close()
        with open_writer(url) as again, again.transaction():
            again.add_open(rows((g, 4, 8, 1)))
            assert listed(again.take_open(graph, 3 * HOUR_US)) == [(g, 2, 5, 300), (g, 2, 8, 1), (g, 2, 1 << 40, 1)]
            assert listed(again.take_open(graph, 9 * HOUR_US)) == [(g, 4, 8, 1)]

    def test_snapshots_are_read_as_written(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        with writer.transaction():
            close(writer, graph, range(10, 30), rows((graph.id, 11, 3, 2), (graph.id, 11, 4, 1), (graph.id, 29, 3, 1)))
        with open_reader(url) as reader:
            table = reader.snapshots("g")
            assert np.array_equal(table.values, table_of(metrics(20, 10)))
            assert (table.step_start_us // HOUR_US).tolist() == list(range(10, 30))
            assert not table.revision.any()
            part = reader.snapshots("g", start_us=12 * HOUR_US, end_us=15 * HOUR_US, metrics=("active_nodes",))
            assert part.values.tolist() == [[12.0], [13.0], [14.0]]
            for last, hours in ((0, []), (1, [19]), (3, [17, 18, 19]), (99, list(range(10, 20)))):
                newest = reader.snapshots("g", end_us=20 * HOUR_US, last=last, metrics=("active_nodes",))
                assert (newest.step_start_us // HOUR_US).tolist() == newest.values[:, 0].tolist() == hours
            assert [info.name for info in reader.graphs()] == ["g"]
            assert reader.graph("g").last_step_us == 29 * HOUR_US
            with pytest.raises(StoreError, match="no graph 'h'; the store has g"):
                reader.snapshots("h")
            with pytest.raises(StoreError, match="no metric 'event'"):
                reader.snapshots("g", metrics=("event",))

    def test_closed_steps_and_edges_are_returned(self, writer: SqlWriter, graph: GraphState) -> None:
        g = graph.id
        edges = [(g, 11, 3, 2), (g, 11, 4 << PAIR_BITS, 1), (g, 12, 3, 1), (g, 14, 1, 70_000)]
        with writer.transaction():
            other = writer.add_graph("h", HOUR_US)
            close(writer, graph, range(10, 15), rows(*edges))
            close(writer, other, [11], rows((other.id, 11, 8, 1)))
        closed = writer.closed(graph, 12 * HOUR_US)
        assert (closed.step_start_us // HOUR_US).tolist() == [12, 13, 14]
        assert np.array_equal(closed.values, table_of(metrics(3, 12)))
        assert writer.closed(graph, 99 * HOUR_US).values.shape == (0, len(METRIC_NAMES))
        found = writer.step_edges(graph, np.arange(9, 14) * HOUR_US)
        assert listed(found) == edges[:3]
        assert np.all(np.diff(found.step_start_us) >= 0)
        assert listed(writer.step_edges(other, np.arange(20) * HOUR_US)) == [(other.id, 11, 8, 1)]
        with writer.transaction():
            writer.expire(graph, edges_before_us=12 * HOUR_US)
            writer.expire(graph, edges_before_us=11 * HOUR_US)
        assert graph.edges_from_us == 12 * HOUR_US
        assert writer.graph("g") == graph
        assert listed(writer.step_edges(graph, np.arange(20) * HOUR_US)) == edges[2:]
        assert len(writer.step_edges(other, ints(11 * HOUR_US))) == 1

    def test_revised_steps_count_their_revisions(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        g = graph.id
        with writer.transaction():
            close(writer, graph, range(10, 15), rows((g, 11, 3, 2), (g, 12, 3, 1)))
        for hours in ([11, 12, 13], [9, 10, 11, 12]):
            steps = Closed(ints(*hours) * HOUR_US, table_of(metrics(len(hours), hours[0] * 2)))
            with writer.transaction():
                writer.revise(graph, steps, rows((g, hours[1], 5, 1)))
        with open_reader(url) as reader:
            table = reader.snapshots("g")
        assert (table.step_start_us // HOUR_US).tolist() == list(range(9, 15))
        assert table.revision.tolist() == [0, 1, 2, 2, 1, 0]
        expected = np.concatenate((table_of(metrics(4, 18)), table_of(metrics(3, 22))[2:], table_of(metrics(1, 14))))
        assert np.array_equal(table.values, expected)
        assert listed(writer.step_edges(graph, np.arange(20) * HOUR_US)) == [
            (g, 10, 5, 1),
            (g, 11, 3, 2),
            (g, 12, 5, 1),
        ]


class EventIdContract(StoreContract):
    def test_ids_are_seen_within_the_window(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        g = graph.id

        def remember(writer: SqlWriter, *events: tuple[int, str, int]) -> list[bool]:
            graphs, ids, times = zip(*events, strict=True)
            with writer.transaction():
                return writer.remember_ids(ints(*graphs), ids, ints(*times), window_us=10).tolist()

        assert remember(writer, (g, "a", 100), (g, "b", 100), (g, "a", 105), (99, "a", 100)) == [
            False,
            False,
            True,
            False,
        ]
        assert remember(writer, (g, "a", 110), (g, "a", 111), (g, "a", 121), (g, "b", 90)) == [True, False, True, True]
        assert remember(writer, (g, "a", 122), (g, "c", 0), (g, "c", 5)) == [False, False, True]
        with writer.transaction():
            writer.forget_ids(ints(g), 111)
        writer.close()
        with open_writer(url) as again:
            found = again.source("kafka:events")
            assert found is not None
            again.claim(found, ["t-0"])
            assert remember(again, (g, "b", 100), (g, "a", 101), (99, "a", 100)) == [False, True, True]

    def test_no_ids_are_nothing(self, writer: SqlWriter) -> None:
        with writer.transaction():
            assert writer.remember_ids(ints(), [], ints(), window_us=1).shape == (0,)
