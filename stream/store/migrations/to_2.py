"""From schema 1, which only SQLite had, to schema 2.

Schema 1 kept no edges of closed steps: those steps cannot be revised. A source had one partition and one position.
"""

import numpy as np

from stream.store.edge_blobs import EdgeBlobs
from stream.store.migrations.running import Execute

_NEW_TABLES = (
    "CREATE TABLE step_edges (graph_id INTEGER NOT NULL, step_start_us INTEGER NOT NULL, edges BLOB NOT NULL,"
    " PRIMARY KEY (graph_id, step_start_us)) STRICT",
    "CREATE TABLE node_steps (id INTEGER PRIMARY KEY, first_step_us INTEGER NOT NULL) STRICT",
    "CREATE TABLE open_chunks (id INTEGER PRIMARY KEY, graph_id INTEGER NOT NULL, step_start_us INTEGER NOT NULL,"
    " n INTEGER NOT NULL, edges BLOB NOT NULL) STRICT",
    "CREATE INDEX open_chunks_by_step ON open_chunks (graph_id, step_start_us)",
    "CREATE TABLE feeders (id INTEGER PRIMARY KEY, graph_id INTEGER NOT NULL, source_id INTEGER NOT NULL,"
    " partition_name TEXT NOT NULL, UNIQUE (graph_id, source_id, partition_name)) STRICT",
    "CREATE INDEX feeders_by_partition ON feeders (source_id, partition_name)",
    "CREATE TABLE event_ids (graph_id INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL,"
    " ts_us INTEGER NOT NULL, PRIMARY KEY (graph_id, high, low, ts_us)) STRICT, WITHOUT ROWID",
    "CREATE INDEX event_ids_by_time ON event_ids (graph_id, ts_us)",
    "CREATE TABLE dead_letters (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id INTEGER NOT NULL, topic TEXT NOT NULL,"
    " partition_number INTEGER NOT NULL, record_offset INTEGER NOT NULL, ts_us INTEGER, key BLOB, value BLOB,"
    " headers BLOB NOT NULL, place TEXT NOT NULL, reason TEXT NOT NULL, stage TEXT NOT NULL,"
    " rejected_us INTEGER NOT NULL, delivered_us INTEGER, replayed_us INTEGER) STRICT",
    "CREATE INDEX dead_letters_to_deliver ON dead_letters (id) WHERE delivered_us IS NULL",
    "CREATE TABLE projections (name TEXT PRIMARY KEY) STRICT",
    "CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, projection TEXT NOT NULL, graph_id INTEGER NOT NULL,"
    " first_step_us INTEGER NOT NULL, last_step_us INTEGER NOT NULL) STRICT",
    "CREATE INDEX outbox_by_projection ON outbox (projection, id)",
)
# A table whose columns stand in another order or have another type is made anew and filled from the old one.
_REMADE = (
    (
        "graphs",
        "id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, step_us INTEGER NOT NULL, first_step_us INTEGER,"
        " next_step_us INTEGER, edges_from_us INTEGER, final_us INTEGER, snapshots INTEGER NOT NULL,"
        " events INTEGER NOT NULL, total_nodes INTEGER NOT NULL, total_edges INTEGER NOT NULL, late INTEGER NOT NULL",
        "STRICT",
        "SELECT id, name, step_us, first_step_us, next_step_us, next_step_us, next_step_us, snapshots, events,"
        " total_nodes, total_edges, late FROM old_graphs",
    ),
    (
        "nodes",
        "id INTEGER PRIMARY KEY, graph_id INTEGER NOT NULL, name TEXT, UNIQUE (graph_id, name)",
        "STRICT",
        "SELECT id, graph_id, name FROM old_nodes",
    ),
    (
        "edges",
        "pair INTEGER PRIMARY KEY, first_step_us INTEGER NOT NULL",
        "STRICT",
        "SELECT pair, first_step_us FROM old_edges",
    ),
    (
        "sources",
        "id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, split_by_type INTEGER NOT NULL, ended INTEGER NOT NULL",
        "STRICT",
        "SELECT id, name, split_by_type, ended FROM old_sources",
    ),
    (
        "partitions",
        "source_id INTEGER NOT NULL, name TEXT NOT NULL, owner INTEGER, position TEXT, watermark_us INTEGER NOT NULL,"
        " max_ts_us INTEGER NOT NULL, events INTEGER NOT NULL, late INTEGER NOT NULL, duplicates INTEGER NOT NULL,"
        " rejected INTEGER NOT NULL, idle INTEGER NOT NULL, PRIMARY KEY (source_id, name)",
        "STRICT, WITHOUT ROWID",
        "SELECT source_id, p.name, NULL, position, watermark_us, max_ts_us, events, late, 0, rejected, 0"
        " FROM old_partitions AS p JOIN old_sources ON id = source_id",
    ),
    (
        "rejects",
        "source_id INTEGER NOT NULL, number INTEGER NOT NULL, place TEXT NOT NULL, record TEXT NOT NULL,"
        " reason TEXT NOT NULL, stage TEXT NOT NULL, PRIMARY KEY (source_id, number)",
        "STRICT, WITHOUT ROWID",
        "SELECT source_id, number, place, record, reason, '' FROM old_rejects",
    ),
)


def migrate_sqlite(execute: Execute) -> None:
    """Change the tables of schema 1 to those of schema 2."""
    for statement in _NEW_TABLES:
        execute(statement)
    for name, columns, options, select in _REMADE:
        execute(f"ALTER TABLE {name} RENAME TO old_{name}")
        execute(f"CREATE TABLE {name} ({columns}) {options}")
        execute(f"INSERT INTO {name} {select}")
    execute("CREATE INDEX partitions_by_owner ON partitions (owner)")
    execute("INSERT INTO node_steps SELECT id, first_step_us FROM old_nodes WHERE first_step_us NOT NULL")
    execute(
        "INSERT INTO feeders (graph_id, source_id, partition_name) SELECT graph_id, source_id, '' FROM source_graphs"
        " ORDER BY graph_id, source_id"
    )
    _chunk_open_edges(execute)
    for name in ("open_edges", "source_graphs", *(f"old_{name}" for name, *_ in _REMADE)):
        execute(f"DROP TABLE {name}")


def _chunk_open_edges(execute: Execute) -> None:
    blobs = EdgeBlobs(level=0)
    for graph_id, step_us in execute("SELECT DISTINCT graph_id, step_start_us FROM open_edges ORDER BY 1, 2"):
        rows = execute(
            "SELECT pair, events FROM open_edges WHERE graph_id = ? AND step_start_us = ? ORDER BY pair",
            (graph_id, step_us),
        )
        columns = np.array(rows, dtype=np.int64)
        (blob,) = blobs.encode(columns[:, 0], columns[:, 1], np.zeros(1, dtype=np.int64))
        execute(
            "INSERT INTO open_chunks (graph_id, step_start_us, n, edges) VALUES (?, ?, ?, ?)",
            (graph_id, step_us, len(rows), blob),
        )
