"""The writing side of the store of record: what ingestion needs of it, whatever database it stands on."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from stream.events import FloatArray, IntArray, Reject
from stream.sources.base import ReadBefore
from stream.store.known import BoolArray
from stream.store.outbox import Projections
from stream.store.records import EdgeRows, Feeder, GraphState, PartitionState, SourceState
from stream.windows import Hand


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed steps of a graph in order, without a gap: their starts [T], their metrics [T, M] in the schema's order."""

    step_start_us: IntArray
    values: FloatArray


class StoreWriter(Projections, Protocol):
    """One process's right to change a store.

    Every change but `claim`, `hold` and `release` happens inside `transaction`; what it changed is there as a whole
    after it, or not at all. After an error nothing that the writer keeps in memory differs from what the store has.

    `exclusive` is True where no other process can write the store meanwhile: what is claimed then needs no record.
    """

    @property
    def exclusive(self) -> bool:
        """Whether no other process can write the store."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Commit what is changed inside, durably, or roll all of it back on an error.

        Raises:
            StoreError: the database failed, or another process has taken over what this one writes.
        """
        ...

    # Sources and their partitions.

    def source(self, name: str) -> SourceState | None:
        """Return a source without partitions, None if there is none of that name."""
        ...

    def read_before(self, prefix: str) -> list[ReadBefore]:
        """Return the sources of one partition whose names begin so and that were read, at least in part."""
        ...

    def lock_beginnings(self) -> None:
        """Let other processes that call this wait until the end of this transaction: see what they began before."""
        ...

    def add_source(self, name: str, *, split_by_type: bool) -> SourceState:
        """Add a source that was never read; if another process was first, return what it added."""
        ...

    def end_source(self, source: SourceState) -> None:
        """Note that a bounded source was read to its end."""
        ...

    def claim(self, source: SourceState, partitions: Sequence[str]) -> dict[str, PartitionState]:
        """Take over partitions, in a transaction of its own, and return their states; new ones are added.

        Every later `transaction` of a process that had claimed one of them before fails.
        """
        ...

    def hold(self, names: Sequence[str]) -> None:
        """Take over the only partitions of sources of these names, in a transaction of its own, if nobody has them.

        Raises:
            StoreError: another process that lives has one.
        """
        ...

    def release(self, source: SourceState, partitions: Sequence[str]) -> None:
        """Note, in a transaction of its own, that this process no longer reads partitions. Others may have them."""
        ...

    def save_partitions(self, source: SourceState, partitions: Mapping[str, PartitionState]) -> None:
        """Write the states of claimed partitions; of an exclusive writer they may be new."""
        ...

    def totals(self, source: SourceState) -> PartitionState:
        """Return the counters of a source added up over all its partitions, whoever reads them."""
        ...

    def hands(self, source: SourceState) -> dict[str, Hand]:
        """Return how far every partition of a source was read, whoever reads it, as the store has it.

        A partition is idle where the process that reads it said so and lives: nobody else can tell that nothing comes.
        """
        ...

    # Graphs.

    def graph(self, name: str) -> GraphState | None:
        """Return a graph, None if there is none of that name."""
        ...

    def graphs_of(self, source: SourceState, partitions: Collection[str] | None = None) -> list[GraphState]:
        """Return the graphs that (these partitions of) a source feeds, by name."""
        ...

    def feeders(self, graph: GraphState) -> list[Feeder]:
        """Return the partitions that have events of a graph, in the order in which they came."""
        ...

    def add_graph(self, name: str, step_us: int) -> GraphState:
        """Add an empty graph; one that nothing feeds yet is returned as it is, but with this step size.

        Readers see it once it is linked to a partition or has a closed step.
        """
        ...

    def share(self, names: Sequence[str], step_us: int, *, alone: bool) -> list[GraphState]:
        """Return graphs that other processes may feed, too, as they are now; nobody changes them in this transaction.

        Those that are not there are added.

        Args:
            names: in order.
            step_us: step size of those that are added, or that nothing feeds yet.
            alone: nobody adds to their open steps either; without it only that may be done, and `unshare`.
        """
        ...

    def unshare(self) -> None:
        """Give up what was shared and not taken alone, before anything is changed.

        Who held it together with others and then wanted it alone would wait for them, and they for it.
        """
        ...

    def noted_graphs(self, source: SourceState, mark: str) -> list[str]:
        """Return the names of the graphs that a source feeds and that are also linked to the source named `mark`."""
        ...

    def save_graphs(self, graphs: Iterable[GraphState]) -> None:
        """Write everything of graphs but id, name and step size."""
        ...

    def link(self, source: SourceState, partition: str, graph: GraphState) -> None:
        """Note that a partition has events of a graph; nothing changes if that was noted before."""
        ...

    # Nodes and edges.

    def node_ids(self, graph_id: IntArray, code: IntArray, names: Sequence[str]) -> IntArray:
        """Return the node ids of names in graphs; a name that a graph has not seen gets the next id.

        Args:
            graph_id: [n].
            code: [n] indices into `names`; until `forget_codes` the same code means the same name.
            names: the names of all codes.
        """
        ...

    def forget_codes(self) -> None:
        """Forget what codes mean: a source started a new interner."""
        ...

    def new_nodes(self, ids: IntArray) -> BoolArray:
        """Return which of the distinct node `ids` [n] no closed step has seen."""
        ...

    def new_edges(self, pairs: IntArray) -> BoolArray:
        """Return which of the distinct node `pairs` [n] no closed step has seen."""
        ...

    def first_steps(self, *, nodes: IntArray, pairs: IntArray) -> tuple[IntArray, IntArray]:
        """Return the closed step where each node and each pair was first seen; `windows.NEVER_US` if none was."""
        ...

    def set_first_steps(self, node: IntArray, node_step_us: IntArray, pair: IntArray, pair_step_us: IntArray) -> None:
        """Write the closed step where nodes and pairs were first seen; pairs may be new, nodes have their ids."""
        ...

    # Steps.

    def add_open(self, rows: EdgeRows) -> None:
        """Add events to open steps."""
        ...

    def take_open(self, graph: GraphState, before_us: int) -> EdgeRows:
        """Remove and return the events of a graph's open steps that start before `before_us`, in any order."""
        ...

    def add_snapshots(
        self, graph_id: IntArray, step_start_us: IntArray, metrics: Mapping[str, FloatArray], edges: EdgeRows
    ) -> None:
        """Write snapshots as revision 0, and the distinct edges of their steps.

        Args:
            graph_id, step_start_us: [n] of each snapshot.
            metrics: an array [n] for each metric of the schema.
            edges: in order of graph, step and pair; steps without events have none.
        """
        ...

    def closed(self, graph: GraphState, start_us: int) -> Closed:
        """Return the closed steps of a graph from `start_us` on."""
        ...

    def step_edges(self, graph: GraphState, step_start_us: IntArray) -> EdgeRows:
        """Return the edges of closed steps, in order of step and pair; those that are no longer kept are not there."""
        ...

    def revise(self, graph: GraphState, steps: Closed, edges: EdgeRows) -> None:
        """Write closed steps anew, each with the next revision, and replace the edges of the steps that `edges` names.

        A step that the graph did not have is written as revision 0.
        """
        ...

    def expire(self, graph: GraphState, *, edges_before_us: int) -> None:
        """Drop the edges of closed steps before a time, and remember in `graph` and the store that they are gone."""
        ...

    # Ids of events.

    def remember_ids(self, graph_id: IntArray, ids: Sequence[str], ts_us: IntArray, *, window_us: int) -> BoolArray:
        """Return which events [n] were seen before, and remember the others.

        An event was seen before if its graph has one of the same id whose time is at most `window_us` away: in the
        store, or earlier in the arrays.
        """
        ...

    def forget_ids(self, graph_id: IntArray, before_us: int) -> None:
        """Forget the ids of the events of graphs [n] before a time."""
        ...

    # Records that are no events.

    def add_rejects(self, source: SourceState, rejects: Sequence[Reject], *, keep: int) -> None:
        """Keep rejects: all that have their whole record, of the others up to `keep` of a source."""
        ...

    def rejects_of(self, source: SourceState) -> list[Reject]:
        """Return the sample of a source's rejects, without those that have their whole record."""
        ...

    def letters_delivered(self, numbers: Sequence[int]) -> None:
        """Note that the dead letter target has durably taken these letters."""
        ...

    def letters_replayed(self, numbers: Sequence[int]) -> None:
        """Note that the records of these letters were sent to their topics again."""
        ...

    def close(self) -> None:
        """Close the store; a new one that nothing was written to goes away."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
