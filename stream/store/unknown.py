"""Names that no store has, and the nearest ones that are there."""

import difflib
from collections.abc import Sequence

from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES


def check_metrics(names: Sequence[str]) -> None:
    """Raise StoreError where a metric is unknown."""
    for name in names:
        if name not in METRIC_INDEX:
            near = difflib.get_close_matches(name, METRIC_NAMES, n=1)
            raise StoreError(
                f"there is no metric {name!r}; there are {', '.join(METRIC_NAMES)}",
                fix=f"did you mean {near[0]}?" if near else None,
            )


def unknown_graph(name: str, names: Sequence[str], place: str) -> StoreError:
    """Return the StoreError of a graph that a store does not have; `names` are those that it has."""
    if not names:
        return StoreError(
            f"there is no graph {name!r}: the store is empty", place=place, fix="ingest events first: graphtide ingest"
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    known = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return StoreError(
        f"there is no graph {name!r}; the store has {known}",
        place=place,
        fix=f"did you mean {' or '.join(near)}?" if near else "take one of these, or see: graphtide graphs",
    )
