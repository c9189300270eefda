"""The part of a writer that knows nodes and edges: ids of names, and the steps where they were first seen.

What was looked up or written is kept in memory within bounds. Where a set in memory is known to hold all that the
store has, as in a run that began with an empty store, what it misses is new and the database is not asked.
"""

from collections.abc import Sequence

import numpy as np

from infra.errors import StoreError
from stream.events import IntArray
from stream.store.known import BoolArray, KeyMap, KeySet
from stream.store.records import MAX_NODE_ID, PAIR_BITS
from stream.store.sql.database import Column, Database, Part
from stream.windows import NEVER_US

# Bounds of memory: 16 bytes a node name, 8 bytes a node or an edge.
KNOWN_NAMES = 1_000_000
KNOWN_NODES = 1_000_000
KNOWN_EDGES = 4_000_000

FIRST_OF_NODES = "SELECT id, first_step_us FROM node_steps WHERE id {keys}"
FIRST_OF_EDGES = "SELECT pair, first_step_us FROM edges WHERE pair {keys}"


class Dictionary(Part):
    """Nodes and edges."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._ids_of_names = KeyMap(KNOWN_NAMES)
        # Of the graph that came last, by code; 0 is unknown. What it has, the map need not have.
        self._last_graph = 0
        self._ids_of_codes: IntArray = np.zeros(0, dtype=np.int64)
        self._closed_nodes = KeySet(KNOWN_NODES)
        self._closed_edges = KeySet(KNOWN_EDGES)

    def _forget(self) -> None:
        super()._forget()
        self.forget_codes()
        self._closed_nodes.clear()
        self._closed_edges.clear()

    def node_ids(self, graph_id: IntArray, code: IntArray, names: Sequence[str]) -> IntArray:
        """Return the node ids of names in graphs; a name that a graph has not seen gets the next id.

        Ids follow the order of the arrays, so that they do not depend on how a log is cut into batches.

        Args:
            graph_id: [n].
            code: [n] indices into `names`; until `forget_codes` the same code means the same name.
            names: the names of all codes.
        """
        if len(code) and (graph_id == graph_id[0]).all():
            return self._ids_in_graph(int(graph_id[0]), code, names)
        self._keep_last_graph()
        key = (graph_id << PAIR_BITS) | code
        distinct, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        ids, known = self._ids_of_names.get(distinct)
        missing = np.flatnonzero(~known)
        if len(missing):
            missing = missing[np.argsort(first[missing])]
            at = first[missing]
            ids[missing] = self._ids(graph_id[at], [names[index] for index in code[at].tolist()])
            missing.sort()
            self._ids_of_names.add(distinct[missing], ids[missing])
        by_row: IntArray = ids[inverse.reshape(-1)]
        return by_row

    def forget_codes(self) -> None:
        """Forget what codes mean: a source started a new interner."""
        self._ids_of_names.clear()
        self._ids_of_codes = np.zeros(0, dtype=np.int64)

    def new_nodes(self, ids: IntArray) -> BoolArray:
        """Return which of the distinct node `ids` [n] no closed step has seen."""
        return self._unseen(ids, self._closed_nodes, "node_steps", FIRST_OF_NODES)

    def new_edges(self, pairs: IntArray) -> BoolArray:
        """Return which of the distinct node `pairs` [n] no closed step has seen."""
        return self._unseen(pairs, self._closed_edges, "edges", FIRST_OF_EDGES)

    def first_steps(self, *, nodes: IntArray, pairs: IntArray) -> tuple[IntArray, IntArray]:
        """Return the closed step where each node and each pair was first seen; `windows.NEVER_US` if none was."""
        return self._first(nodes, FIRST_OF_NODES), self._first(pairs, FIRST_OF_EDGES)

    def set_first_steps(self, node: IntArray, node_step_us: IntArray, pair: IntArray, pair_step_us: IntArray) -> None:
        """Write the closed step where nodes and pairs were first seen; pairs may be new, nodes have their ids."""
        upsert = self.database.upsert
        # In order of keys, neighbours in the tables are written together.
        for known, keys, steps_us, table, column in (
            (self._closed_nodes, node, node_step_us, "node_steps", "id"),
            (self._closed_edges, pair, pair_step_us, "edges", "pair"),
        ):
            if not len(keys):
                continue
            order = np.argsort(keys)
            # Whether the table was empty is asked before it no longer is.
            self._holds_all(known, table)
            upsert(table, {column: keys[order], "first_step_us": steps_us[order]}, key=(column,))
            known.add(keys[~known.contains(keys)])

    def _ids_in_graph(self, graph: int, code: IntArray, names: Sequence[str]) -> IntArray:
        """Return the node ids of names of one graph, as `node_ids` does."""
        if graph != self._last_graph:
            self._keep_last_graph()
            self._last_graph = graph
        if len(names) > len(self._ids_of_codes):
            self._ids_of_codes = np.pad(self._ids_of_codes, (0, 2 * len(names) - len(self._ids_of_codes)))
        ids: IntArray = self._ids_of_codes[code]
        missing = np.flatnonzero(ids == 0)
        if len(missing):
            new, first = np.unique(code[missing], return_index=True)
            new = new[np.argsort(first)]
            new_ids, known = self._ids_of_names.get(graph << PAIR_BITS | new)
            asked = new[~known]
            if len(asked):
                new_ids[~known] = self._ids(np.full(len(asked), graph), [names[index] for index in asked.tolist()])
            self._ids_of_codes[new] = new_ids
            ids[missing] = self._ids_of_codes[code[missing]]
        return ids

    def _keep_last_graph(self) -> None:
        """Move what is known of the last graph to the map of all graphs."""
        codes = np.flatnonzero(self._ids_of_codes)
        keys = self._last_graph << PAIR_BITS | codes
        unknown = ~self._ids_of_names.get(keys)[1]
        self._ids_of_names.add(keys[unknown], self._ids_of_codes[codes[unknown]])
        self._ids_of_codes = np.zeros(0, dtype=np.int64)

    def _ids(self, graph_id: IntArray, names: list[str]) -> IntArray:
        """Return the ids of distinct names [n] of graphs that memory has not; new ones in the order of the arrays."""
        ids = np.zeros(len(names), dtype=np.int64)
        if not self._holds_all(self._ids_of_names, "nodes"):
            ids = self._found(graph_id, names)
        new = np.flatnonzero(ids == 0)
        if len(new):
            new_ids = self.database.next_node_ids(len(new))
            if new_ids[-1] > MAX_NODE_ID:
                raise StoreError(
                    f"the store {self.database.name} is full: it holds {MAX_NODE_ID} nodes", fix="use another store"
                )
            new_names = names if len(new) == len(names) else [names[index] for index in new.tolist()]
            of_graph = graph_id[new]
            if self.database.exclusive:
                self.database.insert("nodes", {"id": new_ids, "graph_id": of_graph, "name": new_names})
                ids[new] = new_ids
                return ids
            # In order of names, two processes that add the same ones to a graph that they share do not wait for each
            # other.
            order = sorted(range(len(new)), key=new_names.__getitem__)
            if (of_graph != of_graph[0]).any():
                order.sort(key=of_graph.tolist().__getitem__)
            rows: dict[str, Column] = {
                "id": new_ids[order],
                "graph_id": of_graph[order],
                "name": [new_names[index] for index in order],
            }
            self.database.upsert("nodes", rows, ("graph_id", "name"), instead={"id": "nodes.id"})
            ids[new] = self._found(graph_id[new], new_names)
        return ids

    def _found(self, graph_id: IntArray, names: Sequence[str]) -> IntArray:
        """Return the ids of distinct names [n] of graphs as the store has them, 0 where it has none."""
        ids = np.zeros(len(names), dtype=np.int64)
        for graph in np.unique(graph_id).tolist():
            own = np.flatnonzero(graph_id == graph)
            ids[own] = self.database.find_names(graph, [names[index] for index in own.tolist()])
        return ids

    def _holds_all(self, known: KeySet | KeyMap, table: str) -> bool:
        if known.complete is None:
            known.complete = self.database.exclusive and not self.database.fetch(f"SELECT 1 FROM {table} LIMIT 1")
        return known.complete

    def _unseen(self, keys: IntArray, known: KeySet, table: str, select: str) -> BoolArray:
        unseen = ~known.contains(keys)
        asked = keys[unseen]
        if len(asked) and not self._holds_all(known, table):
            found = np.sort(np.array([row[0] for row in self.database.fetch_in(select, (), asked)], dtype=np.int64))
            known.add(found)
            unseen[unseen] = ~np.isin(asked, found)
        return unseen

    def _first(self, keys: IntArray, select: str) -> IntArray:
        steps_us = np.full(len(keys), NEVER_US, dtype=np.int64)
        rows = np.array(self.database.fetch_in(select, (), keys) if len(keys) else [], dtype=np.int64).reshape(-1, 2)
        if len(rows):
            rows = rows[np.argsort(rows[:, 0])]
            place = np.minimum(np.searchsorted(rows[:, 0], keys), len(rows) - 1)
            found = rows[place, 0] == keys
            steps_us[found] = rows[place[found], 1]
        return steps_us
