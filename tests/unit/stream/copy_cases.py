"""A store with something of everything, and what a copy of it has to have."""

from dataclasses import replace

import numpy as np

from infra.steps import HOUR_US
from stream.decoders.records.base import Record
from stream.events import Reject
from stream.store import open_dead_letters, open_outbox, open_writer
from stream.store.records import PAIR_BITS, PartitionState
from stream.store.writer import Closed
from stream.windows import Clock
from tests.unit.stream.store_contract import close, ints, listed, metrics, rows, table_of

STATE = PartitionState(Clock(5, 9), {"offset": 7}, 4, 3, 2, 1, idle=True)
NAMES = ["a", "b\u00e9", "c"]
N_STEPS = 40


def fill(url: str) -> None:
    with open_writer(url) as writer:
        with writer.transaction():
            source = writer.add_source("kafka", split_by_type=True)
            writer.enable_projection("influxdb")
        writer.claim(source, ["t-0"])
        with writer.transaction():
            writer.save_partitions(source, {"t-0": STATE})
            for name in ("g", "h"):
                graph = writer.add_graph(name, HOUR_US)
                writer.link(source, "t-0", graph)
                ids = writer.node_ids(np.full(3, graph.id), np.arange(3), NAMES)
                pairs = ids[:2] << PAIR_BITS | ids[1:]
                writer.set_first_steps(ids, ids * HOUR_US, pairs, pairs)
                close(writer, graph, range(N_STEPS), rows(*((graph.id, 3, int(pair), 2) for pair in pairs)))
                writer.add_open(rows((graph.id, N_STEPS + 1, int(pairs[0]), 5)))
                writer.revise(graph, Closed(ints(7) * HOUR_US, table_of(metrics(1, 99))), rows())
                graph.total_nodes, graph.late, graph.final_us = 3, 4, 5 * HOUR_US
                writer.save_graphs([graph])
            writer.remember_ids(ints(1), ["id"], ints(100), window_us=10)
            writer.add_rejects(
                source, [Reject("1", "x", "y"), Reject("", "", "late", "", Record(b"\xff", topic="t"))], keep=9
            )


def check_whole(url: str) -> None:
    """Assert that ingestion goes on from the copy as it would from the first store."""
    with open_writer(url) as writer:
        source = writer.source("kafka")
        assert source is not None
        assert source.split_by_type
        assert [feeder.elsewhere for feeder in writer.feeders(writer.graphs_of(source)[0])] == [False]
        assert writer.claim(source, ["t-0"]) == {"t-0": replace(STATE, idle=False)}
        with writer.transaction():
            graphs = writer.graphs_of(source, ["t-0"])
            assert [graph.name for graph in graphs] == ["g", "h"]
            known: set[int] = set()
            for graph in graphs:
                writer.link(source, "t-0", graph)
                ids = writer.node_ids(np.full(4, graph.id), np.arange(4), [*NAMES, "new"])
                assert not known & set(ids.tolist())
                known |= set(ids.tolist())
                assert writer.new_nodes(ids).tolist() == [False, False, False, True]
                pairs = ids[:2] << PAIR_BITS | ids[1:3]
                assert writer.first_steps(nodes=ids[:3], pairs=pairs)[0].tolist() == (ids[:3] * HOUR_US).tolist()
                assert not writer.new_edges(pairs).any()
                assert listed(writer.take_open(graph, 99 * HOUR_US)) == [(graph.id, N_STEPS + 1, int(pairs[0]), 5)]
                assert len(writer.step_edges(graph, ints(3) * HOUR_US)) == 2
                writer.add_open(rows((graph.id, 50, 1, 1)))
            writer.add_graph("more", HOUR_US)
            assert writer.remember_ids(ints(1), ["id"], ints(105), window_us=10).tolist() == [True]
            assert writer.rejects_of(source) == [Reject("1", "x", "y")]
            writer.add_rejects(source, [Reject("", "", "", "", Record(b"2"))], keep=9)
    with open_dead_letters(url) as letters:
        assert [letter.record.value for letter in letters.to_deliver(9)] == [b"\xff", b"2"]
    with open_outbox(url) as outbox:
        assert outbox.waiting("influxdb") == 2 * (N_STEPS + 1)
