"""The part of a writer that erases a node on request."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from infra.errors import StoreError
from stream.store.records import GraphState
from stream.store.sql.database import Row
from stream.store.sql.sources import Sources

_DELETE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure took away.

    Attributes:
        nodes: names that left the dictionary: 1, or 0 where none but traces in letters and rejects were there.
        dead_letters, rejects: records that mentioned the name, of any graph.
    """

    nodes: int
    dead_letters: int
    rejects: int


class Erasure(Sources):
    """Erasing nodes."""

    def erase(self, graph: GraphState, name: str) -> Erased:
        """Erase the name of a node, in a transaction; `database.scrub` afterwards overwrites where it stood.

        The name leaves the dictionary, dead letters and the sample of rejects. The node's id stays, as that of nobody:
        the edges of steps and the counts that it is part of do not change, so no snapshot does. The same name
        coming again is a new node.

        What remains: digests of the ids of events, from which no id can be read, until the deduplication window has
        passed; names inside dead letters that are compressed or encrypted, which cannot be searched; what has been
        delivered elsewhere (the dead letter target, the log itself, backups).

        Raises:
            StoreError: another process is filling the graph, and would go on with the erased name.
        """
        for feeder in self.feeders(graph):
            if feeder.elsewhere:
                raise StoreError(
                    f"another process is filling graph {graph.name!r} from {feeder.source}",
                    place=self.database.name,
                    fix="stop it, erase the node, and start it again",
                )
        nodes = self.database.fetch(
            "UPDATE nodes SET name = NULL WHERE graph_id = ? AND name = ? RETURNING id", (graph.id, name)
        )
        mention = _Mention(name)
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
        return Erased(len(nodes), len(letters), len(rejects))

    def _rows(self, sql: str) -> Iterator[Row]:
        for page in self.database.pages(sql, ()):
            yield from page


class _Mention:
    """Finds a name in records: as a word in text, in JSON's escapes too; anywhere in bytes that are no text."""

    def __init__(self, name: str) -> None:
        self._plain = name.encode()
        spellings = {name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1]}
        word = "|".join(re.escape(spelling) for spelling in sorted(spellings))
        self._word = re.compile(rf"(?<!\w)(?:{word})(?!\w)", re.IGNORECASE)

    def among(self, *parts: bytes | None) -> bool:
        return any(self._is_in(part) for part in parts if part)

    def _is_in(self, part: bytes) -> bool:
        try:
            text = part.decode()
        except UnicodeDecodeError:
            return self._plain in part
        return self._word.search(text) is not None
