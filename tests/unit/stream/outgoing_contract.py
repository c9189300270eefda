"""What every store of record promises of what leaves it, as tests: the outbox, dead letters, erasure."""

import json

import numpy as np
import pytest

from infra.steps import HOUR_US
from stream.decoders.records.base import Record
from stream.events import Reject
from stream.store import open_dead_letters, open_outbox
from stream.store.outbox import CHANGE_STEPS, Change
from stream.store.rebuild import source_of_rebuilt
from stream.store.records import PAIR_BITS, GraphState, SourceState
from stream.store.sql.erasure import Erased
from stream.store.sql.writer import SqlWriter
from stream.store.writer import Closed
from tests.unit.stream.store_contract import (
    NOW_US,
    StoreContract,
    close,
    ints,
    listed,
    metrics,
    rows,
    table_of,
)


class OutboxContract(StoreContract):
    def test_changes_wait_for_enabled_projections(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        with writer.transaction():
            close(writer, graph, range(10, 13))
        with open_outbox(url) as outbox:
            assert outbox.pending("influxdb", 10) == []
            for _ in range(2):
                with writer.transaction():
                    writer.enable_projection("influxdb")
            with writer.transaction():
                close(writer, graph, [13, 14])
                writer.revise(graph, Closed(ints(11, 12) * HOUR_US, table_of(metrics(2))), rows())
            waiting = outbox.pending("influxdb", 10)
            spans = [(10, 12), (13, 14), (11, 12)]
            assert waiting == [
                Change(change.number, "g", HOUR_US, first * HOUR_US, last * HOUR_US)
                for change, (first, last) in zip(waiting, spans, strict=True)
            ]
            assert [change.n_steps for change in waiting] == [3, 2, 2]
            assert outbox.waiting("influxdb") == 7
            assert outbox.pending("influxdb", 1) == waiting[:1]
            with writer.transaction():
                writer.projected("influxdb", [waiting[0].number, waiting[2].number])
                writer.projected("other", [waiting[1].number])
            assert outbox.pending("influxdb", 10) == waiting[1:2]
            with writer.transaction():
                writer.enable_projection("other")
                writer.disable_projection("influxdb")
            assert outbox.pending("influxdb", 10) == []
            assert [change.n_steps for change in outbox.pending("other", 10)] == [5]
            assert outbox.elect("other")

    def test_all_is_noted_again_for_another_place(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        def enabled(place: str) -> tuple[list[int], str]:
            with writer.transaction():
                writer.enable_projection("influxdb", place)
            with open_outbox(url) as outbox:
                return [change.n_steps for change in outbox.pending("influxdb", 10)], outbox.store_id()

        def write_all() -> None:
            with open_outbox(url) as outbox, writer.transaction():
                writer.projected("influxdb", [change.number for change in outbox.pending("influxdb", 10)])

        with writer.transaction():
            close(writer, graph, range(10, 13))
        assert enabled("") == ([3], "")
        write_all()
        # Of a store of an older version nobody knows the place: it stays what it was.
        waiting, store_id = enabled("one")
        assert waiting == []
        assert len(store_id) == 16
        with writer.transaction():
            close(writer, graph, [13])
        assert enabled("one") == ([1], store_id)
        assert enabled("two") == ([4], store_id)
        write_all()
        assert enabled("two") == ([], store_id)
        with writer.transaction():
            writer.disable_projection("influxdb")
        assert enabled("two") == ([4], store_id)
        with open_outbox(url) as outbox:
            assert outbox.waiting("influxdb") == 4

    def test_a_change_is_a_bounded_piece_of_work(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        hours = range(CHANGE_STEPS + 5)
        with writer.transaction():
            writer.enable_projection("before")
            close(writer, graph, hours)
            writer.enable_projection("after")
        with open_outbox(url) as outbox:
            for name in ("before", "after"):
                changes = outbox.pending(name, 10)
                assert [change.n_steps for change in changes] == [CHANGE_STEPS, 5]
                assert changes[1].first_step_us == changes[0].last_step_us + HOUR_US
                assert changes[1].last_step_us == hours[-1] * HOUR_US

    def test_the_number_of_a_change_is_not_given_again(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        # A projector may still hold the number of a change that is gone, and would take the new one for written.
        with writer.transaction():
            writer.enable_projection("influxdb")
            close(writer, graph, [1])
        with open_outbox(url) as outbox:
            (first,) = outbox.pending("influxdb", 10)
            with writer.transaction():
                writer.projected("influxdb", [first.number])
            with writer.transaction():
                close(writer, graph, [2])
            (second,) = outbox.pending("influxdb", 10)
            assert second.number > first.number

    def test_graphs_that_were_restored_from_a_place_are_known(
        self, url: str, writer: SqlWriter, graph: GraphState
    ) -> None:
        with writer.transaction():
            source = source_of_rebuilt(writer, "influxdb://one/org/bucket")
            for name in ("x", "y"):
                writer.link(source, "", writer.add_graph(name, HOUR_US))
        with open_outbox(url) as outbox:
            assert sorted(outbox.rebuilt_from("influxdb://one/org/bucket")) == ["x", "y"]
            assert outbox.rebuilt_from("influxdb://two/org/bucket") == []

    def test_what_is_undone_does_not_wait(self, url: str, writer: SqlWriter, graph: GraphState) -> None:
        with pytest.raises(ZeroDivisionError), writer.transaction():
            writer.enable_projection("influxdb")
            close(writer, graph, [1])
            _ = 1 / 0
        with writer.transaction():
            close(writer, graph, [1])
        with open_outbox(url) as outbox:
            assert outbox.pending("influxdb", 10) == []


class DeadLetterContract(StoreContract):
    def test_whole_records_come_back_and_are_marked(self, url: str, writer: SqlWriter, source: SourceState) -> None:
        records = [
            Record(b"v\0\xff", b"k", (("h", b"\xff"), ("h", b"")), "t", 3, 70, 8),
            Record(None, None, (), "u", 0, 71, None),
            Record(b"", b"", (), "t", 1, 72, 9),
        ]
        rejects = [Reject("t-0", "v", f"reason {n}", "VALUE_CONVERTER", record) for n, record in enumerate(records)]
        with writer.transaction():
            writer.add_rejects(source, [rejects[0], Reject("line 1", "", ""), *rejects[1:]], keep=10)
        with open_dead_letters(url) as letters:
            assert letters.elect()
            found = letters.to_deliver(10)
            assert found == letters.letters(limit=10)
            assert [letter.record for letter in found] == records
            assert [letter.reason for letter in found] == ["reason 0", "reason 1", "reason 2"]
            assert {(letter.source, letter.place, letter.stage, letter.rejected_us) for letter in found} == {
                (source.name, "t-0", "VALUE_CONVERTER", NOW_US)
            }
            assert len({letter.id for letter in found}) == 3
            numbers = [letter.number for letter in found]
            assert letters.to_deliver(2) == found[:2]
            with writer.transaction():
                writer.letters_delivered(numbers[:1])
                writer.letters_replayed(numbers[1:2])
            assert letters.to_deliver(10)[1:] == found[2:]
            first, second, third = letters.letters(limit=10)
            assert (first.delivered_us, first.replayed_us) == (NOW_US, None)
            assert (second.delivered_us, second.replayed_us) == (None, NOW_US)
            assert letters.letters(after=numbers[0], limit=1) == [second]
            assert letters.letters(limit=9, topic="t") == [first, third]
            assert letters.letters(limit=9, topic="u", only_unreplayed=True) == []
            assert letters.letters(limit=9, numbers=[numbers[2], numbers[0], 10**9]) == [first, third]


class ErasureContract(StoreContract):
    def test_a_name_leaves_everything_but_counts(self, url: str, writer: SqlWriter, source: SourceState) -> None:
        name = 'José "Pepe"'
        texts = [
            json.dumps({"src": name, "dst": "b"}),
            json.dumps({"src": name, "dst": "b"}, ensure_ascii=False),
            f"a,{name},7",
            json.dumps({"src": f"{name}x", "dst": "Jos"}),
        ]
        records = [Record(text.encode(), topic="t", offset=at) for at, text in enumerate(texts)]
        records += [Record(b"", name.encode()), Record(b"\xff" + b"xx" + name.encode() + b"xx"), Record(b"\xffJos")]
        with writer.transaction():
            graph, other = writer.add_graph("g", HOUR_US), writer.add_graph("h", HOUR_US)
            before = writer.node_ids(ints(graph.id, graph.id, other.id), ints(0, 1, 0), [name, "b"])
            close(writer, graph, [1], rows((graph.id, 1, int(before[0]) << PAIR_BITS | int(before[1]), 1)))
            writer.add_rejects(source, [Reject("", "", "late", "", record) for record in records], keep=9)
            writer.add_rejects(source, [Reject("", texts[0], "late"), Reject("", texts[3], f"{name}!")], keep=9)
            writer.add_rejects(source, [Reject("", "a,b", "late")], keep=9)
        edges = listed(writer.step_edges(graph, ints(HOUR_US)))
        with writer.transaction():
            assert writer.erase(graph, name) == Erased(("g",), dead_letters=5, rejects=2)
        assert writer.database.scrub()
        with open_dead_letters(url) as letters:
            assert [letter.record for letter in letters.letters(limit=9)] == [records[3], records[6]]
        assert writer.rejects_of(source) == [
            Reject("", "", "erased"),
            Reject("", "", "erased"),
            Reject("", "a,b", "late"),
        ]
        assert listed(writer.step_edges(graph, ints(HOUR_US))) == edges
        with writer.transaction():
            after = writer.node_ids(ints(graph.id, graph.id, other.id), ints(0, 1, 0), [name, "b"])
            assert after[1:].tolist() == before[1:].tolist()
            assert after[0] > before.max()
            assert writer.erase(graph, "nobody") == Erased((), 0, 0)

    def test_a_name_leaves_the_graphs_of_each_event_type(self, writer: SqlWriter) -> None:
        names = ["town", "town:follow", "town:re%ply", "town2", "town2:follow", "to_n"]
        with writer.transaction():
            graphs = [writer.add_graph(name, HOUR_US) for name in names]
            ids = ints(*(graph.id for graph in graphs))
            writer.node_ids(ids, np.zeros(len(names), dtype=np.int64), ["alice", "bob"])
            writer.node_ids(ids[:3], ints(1, 1, 1), ["alice", "bob"])
        with writer.transaction():
            assert writer.erase(graphs[0], "alice").graphs == ("town", "town:follow", "town:re%ply")
        kept = writer.database.fetch(
            "SELECT graphs.name, nodes.name FROM nodes JOIN graphs ON graphs.id = graph_id WHERE nodes.name IS NOT NULL"
        )
        expected = [(name, "bob") for name in names[:3]] + [(name, "alice") for name in names[3:]]
        assert sorted(map(tuple, kept)) == sorted(expected)
