"""Logs that were cut off within a step, which counts less than it would have: forecasts take it for a fall."""

from collections.abc import Sequence

from infra.steps import format_time
from stream.progress import IngestResult
from stream.store import open_reader

# A last step is compared with so many before it; with fewer than the second it is not judged.
_STEPS_BEFORE, _FEWEST_BEFORE = 8, 4
# It looks cut off where the lowest of them would have had so many events in the silence at its end.
_EXPECTED_EVENTS = 5.0


def looks_cut_off(events: Sequence[float], silent_share: float) -> bool:
    """Tell whether a log was probably cut off in its last step.

    A network that is active in a part of each step alone has as much in its last one as in those before.

    Args:
        events: how many there were in each of the last steps, in their order.
        silent_share: the share of the last step that lies behind the log's last event.
    """
    *before, last = events
    if len(before) < _FEWEST_BEFORE:
        return False
    return last < min(before) and silent_share * min(before) >= _EXPECTED_EVENTS


def notes_of_cut(store_url: str, result: IngestResult) -> list[str]:
    """Return what a user should know where a log, read to its end, was probably cut off in the middle of a step.

    All graphs of a log end with the same step; the one with the most events tells.

    Raises:
        StoreError: the store cannot be read.
    """
    graph = max(result.graphs, key=lambda graph: graph.events, default=None)
    if graph is None or graph.last_step_us is None or result.last_us is None:
        return []
    end_us = graph.last_step_us + graph.step_us
    if not graph.last_step_us <= result.last_us < end_us:
        return []  # another log goes further
    with open_reader(store_url) as reader:
        table = reader.snapshots(graph.name, metrics=("events",), last=_STEPS_BEFORE + 1)
    events = table.values[:, 0].tolist()
    silent_share = (end_us - result.last_us) / graph.step_us
    if not looks_cut_off(events, silent_share):
        return []
    return [
        f"the last step of graph {graph.name!r}, {format_time(graph.last_step_us)}, has {events[-1]:,.0f} events, fewer"
        f" than each of the {len(events) - 1} before it, and none in its last {silent_share:.0%}. If the log was cut"
        " off there, forecasts take that for a fall: ingested with --no-close-at-end into a new --graph or store, the"
        " step stays open for what follows"
    ]
