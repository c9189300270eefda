"""Every query that reads or deletes a part of a table, with parameters, for tests of how databases run them."""

import numpy as np

from infra.schema import METRIC_NAMES
from infra.steps import HOUR_US
from stream.store.sql import closed_steps, dictionary, event_ids, letter_reader, letters, open_steps, reader, sources

# Queries with `{keys}` are asked for a few of them.
KEYS = np.arange(1, 40, dtype=np.int64) << 8
_LETTERS = letter_reader.letters_query(after=5, topic=None, only_unreplayed=False)[0]


def _range(
    *, start: bool, end: bool, last: int | None, columns: tuple[str, ...] = METRIC_NAMES
) -> tuple[str, tuple[object, ...]]:
    sql, parameters = reader.range_query(
        columns, "g3", start_us=4000 * HOUR_US if start else None, end_us=4100 * HOUR_US if end else None, last=last
    )
    return sql, tuple(parameters)


QUERIES: dict[str, tuple[str, tuple[object, ...]]] = {
    "snapshots of a range": _range(start=True, end=True, last=None),
    "the newest of a range": _range(start=True, end=True, last=50),
    "the newest snapshots": _range(start=False, end=False, last=100),
    "the newest up to a time": _range(start=False, end=True, last=100),
    "one metric of a range": _range(start=True, end=True, last=None, columns=("events",)),
    "closed steps": (closed_steps.CLOSED_FROM, (3, 9900 * HOUR_US)),
    "edges of steps": (closed_steps.EDGES_OF_STEPS, (3,)),
    "edges that expire": (closed_steps.EDGES_BEFORE, (3, 20 * HOUR_US)),
    "open events": (open_steps.OPEN_BEFORE, (3, 20 * HOUR_US)),
    "how many open events": (open_steps.OPEN_ROWS, (3,)),
    "open events that are taken": (open_steps.DELETE_BEFORE, (3, 20 * HOUR_US)),
    "first steps of nodes": (dictionary.FIRST_OF_NODES, ()),
    "first steps of edges": (dictionary.FIRST_OF_EDGES, ()),
    "ids that were seen": (event_ids.SAME_IDS, (3,)),
    "ids that are forgotten": (event_ids.FORGET_IDS, (20 * HOUR_US,)),
    "changes to project": (reader.PENDING, ("influxdb", 10)),
    "letters to deliver": (letter_reader.TO_DELIVER, (10,)),
    "letters by number": (f"{_LETTERS} ORDER BY dead_letters.id LIMIT ?", (9000, 10)),
    "a few letters": (f"{_LETTERS} AND dead_letters.id {{keys}}", (0,)),
    "rejects of a source": (letters.REJECTS_OF, (1,)),
    "partitions of a source": (sources.HANDS, (2,)),
    "graphs that are noted": (sources.NOTED, ("file", 1)),
    "what feeds a graph": (sources.FEEDERS, (3,)),
    "a graph by its name": (reader.GRAPH, ("g3",)),
    "graphs restored from a place": (reader.REBUILT_FROM, ("rebuilt:a",)),
}  # fmt: skip
# The tables that these read in order of an index, or of which they read a few rows; nothing is read as a whole.
N_GRAPHS, N_STEPS = 5, 10_000


def filling(series: str, empty: str) -> list[str]:
    """Return statements that fill a store.

    Args:
        series: a query of the numbers 1 to N as `n`, N as `{}`.
        empty: the literal of no bytes.
    """
    numbers = f"({series.format(N_STEPS)}) AS numbers"
    graphs = f"({series.format(N_GRAPHS)}) AS owners"
    names = ", ".join(METRIC_NAMES)
    zeros = ", ".join("0" for _ in METRIC_NAMES)
    each = f"FROM (SELECT owners.n AS graph_id, numbers.n AS n FROM {graphs} CROSS JOIN {numbers}) AS rows_of"
    step = f"n * {HOUR_US}"
    late = "CASE WHEN n > 9900 THEN NULL ELSE 1 END"
    return [
        "INSERT INTO graphs (id, name, step_us, snapshots, events, total_nodes, total_edges, late)"
        f" SELECT n, 'g' || n, {HOUR_US}, 0, 0, 0, 0, 0 FROM {graphs}",
        f"INSERT INTO snapshots (graph_id, step_start_us, revision, {names})"
        f" SELECT graph_id, {step}, 0, {zeros} {each}",
        f"INSERT INTO step_edges (graph_id, step_start_us, edges) SELECT graph_id, {step}, {empty} {each}",
        f"INSERT INTO open_chunks (graph_id, step_start_us, n, edges) SELECT graph_id, {step}, 1, {empty} {each}",
        f"INSERT INTO node_steps (id, first_step_us) SELECT n, {step} FROM {numbers}",
        f"INSERT INTO edges (pair, first_step_us) SELECT n, {step} FROM {numbers}",
        f"INSERT INTO event_ids (graph_id, high, low, ts_us) SELECT graph_id, n, n, {step} {each}",
        "INSERT INTO outbox (projection, graph_id, first_step_us, last_step_us)"
        f" SELECT 'influxdb', graph_id, {step}, {step} {each}",
        "INSERT INTO sources (id, name, split_by_type, ended) VALUES (1, 'kafka', 0, 0), (2, 'file', 0, 0)",
        "INSERT INTO dead_letters (source_id, topic, partition_number, record_offset, headers, place, reason, stage,"
        f" rejected_us, delivered_us) SELECT 1, 't', 0, n, {empty}, '', '', '', 1, {late} FROM {numbers}",
        "INSERT INTO rejects (source_id, number, place, record, reason, stage)"
        f" SELECT n / 9900 + 1, n, '', '', '', '' FROM {numbers}",
        "INSERT INTO partitions"
        " (source_id, name, owner, watermark_us, max_ts_us, events, late, duplicates, rejected, idle)"
        f" SELECT 1, 'p' || n, n, 0, 0, 0, 0, 0, 0, 0 FROM {numbers}",
        f"INSERT INTO feeders (graph_id, source_id, partition_name) SELECT n, 1, 'p' || n FROM {numbers}",
    ]
