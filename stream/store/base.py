"""The reading side of a snapshot store: what forecasting, the CLI and the API see of it."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """One graph of a store.

    Attributes:
        name: the graph's name.
        step_us: its step size in microseconds.
        snapshots: how many steps are closed.
        events: events counted in closed steps.
        first_step_us, last_step_us: starts of the first and the last closed step; None while none is closed.
        late: events dropped because they came behind the watermark.
        final_us: no event can revise a step before this any more; None where the store does not know.
    """

    name: str
    step_us: int
    snapshots: int
    events: int
    first_step_us: int | None
    last_step_us: int | None
    late: int
    final_us: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotTable:
    """Snapshots of one graph in step order, without a gap.

    Attributes:
        metrics: names of the columns of `values`.
        step_start_us: [T] int64.
        revision: [T] int64.
        values: [T, len(metrics)] float64 (counts are whole numbers).
    """

    graph: str
    step_us: int
    metrics: tuple[str, ...]
    step_start_us: npt.NDArray[np.int64]
    revision: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.step_start_us)

    def digest(self) -> str:
        """Return a SHA-256 of everything but the graph's name: equal exactly where the snapshots are."""
        digest = hashlib.sha256(f"{self.step_us} {' '.join(self.metrics)}\n".encode())
        digest.update(self.step_start_us.astype("<i8").tobytes())
        digest.update(self.revision.astype("<i8").tobytes())
        digest.update(self.values.astype("<f8").tobytes())
        return digest.hexdigest()


class SnapshotReader(Protocol):
    """Read access to the snapshots of a store; safe beside a running ingest process."""

    def graphs(self) -> list[GraphInfo]:
        """Return all graphs, by name."""
        ...

    def graph(self, name: str) -> GraphInfo:
        """Return one graph.

        Raises:
            StoreError: there is no such graph; the message names the nearest ones.
        """
        ...

    def snapshots(
        self,
        name: str,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        metrics: tuple[str, ...] | None = None,
        last: int | None = None,
    ) -> SnapshotTable:
        """Return snapshots with `start_us <= step_start < end_us`, the newest `last` of them if given.

        Raises:
            StoreError: there is no such graph, or a metric is unknown.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
