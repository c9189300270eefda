"""The part of a writer that erases a node on request."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from infra.errors import StoreError
from stream.store.mention import Mention
from stream.store.records import GraphState
from stream.store.sql.database import Row
from stream.store.sql.sources import Sources

_DELETE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure took away.

    Attributes:
        graphs: names of the graphs whose dictionary the name has left; none where there were but traces in letters
            and rejects.
        dead_letters, rejects: records that mentioned the name, of any graph.
    """

    graphs: tuple[str, ...]
    dead_letters: int
    rejects: int


class Erasure(Sources):
    """Erasing nodes."""

    def erase(self, graph: GraphState, name: str) -> Erased:
        """Erase the name of a node, in a transaction; `database.scrub` afterwards overwrites where it stood.

        The name leaves the dictionary of the graph and those of its graphs by event type, dead letters and the sample
        of rejects. The node's id stays, as that of nobody: the edges of steps and the counts that it is part of do not
        change, so no snapshot does. The same name coming again is a new node.

        What remains: digests of the ids of events, from which no id can be read, until the deduplication window has
        passed; names inside dead letters that are compressed or encrypted, which cannot be searched; what has been
        delivered elsewhere (the dead letter target, the log itself, backups).

        Raises:
            StoreError: another process is filling one of these graphs, and would go on with the erased name.
        """
        graphs = [graph, *self._graphs_by_type(graph)]
        for each in graphs:
            self._refuse_filled(each)
        left = tuple(
            each.name
            for each in graphs
            if self.database.fetch(
                "UPDATE nodes SET name = NULL WHERE graph_id = ? AND name = ? RETURNING id", (each.id, name)
            )
        )
        mention = Mention(name)
        letters = [
            number
            for number, key, value, headers, place, reason in self._rows(
                "SELECT id, key, value, headers, place, reason FROM dead_letters"
            )
            if mention.among(key, value, headers) or mention.among(place.encode(), reason.encode())
        ]
        for begin in range(0, len(letters), _DELETE_ROWS):
            keys = np.array(letters[begin : begin + _DELETE_ROWS], dtype=np.int64)
            self.database.fetch_in("DELETE FROM dead_letters WHERE id {keys}", (), keys)
        rejects = [
            (source_id, number)
            for source_id, number, place, record, reason in self._rows(
                "SELECT source_id, number, place, record, reason FROM rejects"
            )
            if mention.among(place.encode(), record.encode(), reason.encode())
        ]
        # The row stays: it is one of those that are counted.
        for source_id, number in rejects:
            self.database.fetch(
                "UPDATE rejects SET place = '', record = '', reason = 'erased' WHERE source_id = ? AND number = ?",
                (source_id, number),
            )
        self._forget()
        return Erased(left, len(letters), len(rejects))

    def _graphs_by_type(self, graph: GraphState) -> list[GraphState]:
        """Return the graphs that have the same events, each those of one type; no other has a colon in its name."""
        prefix = f"{graph.name}:"
        rows = self.database.fetch(
            "SELECT name FROM graphs WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix)
        )
        found = (self.graph(name) for (name,) in rows)
        return [each for each in found if each is not None]

    def _refuse_filled(self, graph: GraphState) -> None:
        for feeder in self.feeders(graph):
            if feeder.elsewhere:
                raise StoreError(
                    f"another process is filling graph {graph.name!r} from {feeder.source}",
                    place=self.database.name,
                    fix="stop it, erase the node, and start it again",
                )

    def _rows(self, sql: str) -> Iterator[Row]:
        for page in self.database.pages(sql, ()):
            yield from page
