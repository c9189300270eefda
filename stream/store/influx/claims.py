"""Which store of record writes which graph of a bucket: two stores would overwrite each other's points unseen."""

import time
from collections.abc import Collection, Mapping

from infra.errors import StoreError
from stream.store.influx.address import InfluxAddress
from stream.store.influx.flux import claims_query, parse_claims
from stream.store.influx.points import claim_line, tag_of_graph
from stream.store.influx.writer import InfluxWriter

# Another store may have taken a graph over meanwhile, on request.
_ASK_EVERY_S = 60.0
# InfluxDB cannot write only where nothing is. Of two stores that found a graph free and claimed it, the first reads
# what the second wrote, as long as asking and claiming took the second no longer than this; else it does so when it
# asks next. No clock of one is compared with that of the other.
_READ_BACK_S = 1.0


class Claims:
    """The graphs that one store of record writes to one bucket.

    A graph that nobody claims, such as one that an older version wrote, is claimed before its first point.

    Args:
        address: the bucket.
        writer: of that bucket.
        store_id: the identity of the store; "" for one that has none, and claims nothing.
        take_over: also claim what another store has.

    Attributes:
        left: graphs that are left to another store: neither claimed nor written.
    """

    def __init__(self, address: InfluxAddress, writer: InfluxWriter, store_id: str, *, take_over: bool) -> None:
        self._address = address
        self._writer = writer
        self._store_id = store_id
        self._take_over = take_over
        self.left: frozenset[str] = frozenset()
        self._held: set[str] = set()
        self._asked_s = float("-inf")

    def leave(self, graphs: Collection[str]) -> None:
        """Leave those of graphs that were restored from the bucket to the stores that wrote them there.

        The bucket has them, and nothing here changes them any more, while the other store may live on and revise them.

        Raises:
            StoreError: InfluxDB refuses the query.
            StoppedError: the writer was stopped.
        """
        if graphs and self._store_id and not self._take_over:
            owners = self._owners()
            self.left = frozenset(graph for graph in graphs if self._is_others(graph, owners))

    def hold(self, graphs: Collection[str]) -> None:
        """Make sure that this store, and no other, may write these graphs.

        Raises:
            StoreError: another store writes one of them; nothing was claimed, but where it came at the same moment.
            StoppedError: the writer was stopped.
        """
        if not self._store_id:
            return
        new = sorted(set(graphs) - self._held)
        if not new and time.monotonic() - self._asked_s < _ASK_EVERY_S:
            return
        owners = self._owners()
        for graph in sorted(graphs):
            if self._is_others(graph, owners) and (graph in self._held or not self._take_over):
                raise self._refusal(graph)
        free = [graph for graph in new if owners.get(tag_of_graph(graph)) != self._store_id]
        if free:
            self._writer.write(claim_line(graph, self._store_id) for graph in free)
            self._writer.pause(_READ_BACK_S)
            owners = self._owners()
            for graph in free:
                if self._is_others(graph, owners):
                    raise self._refusal(graph)
        self._held.update(new)
        self._asked_s = time.monotonic()

    def _is_others(self, graph: str, owners: Mapping[str, str]) -> bool:
        return owners.get(tag_of_graph(graph), self._store_id) != self._store_id

    def _owners(self) -> dict[str, str]:
        rows = parse_claims(self._writer.ask(claims_query(self._address.bucket))).to_pylist()
        return {row["graph"]: row["_value"] for row in rows}

    def _refusal(self, graph: str) -> StoreError:
        return StoreError(
            f"the {self._address.place} holds a graph {graph!r} of another store of record, which would be overwritten",
            place="[influxdb] bucket",
            fix="name another bucket, or ingest into a graph of another name (--graph);"
            " to replace what the other store wrote: graphtide store project --all",
        )
