"""The tables of a store, schema 2, for any SQL database."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from infra.schema import METRICS, Kind

STORE_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Types:
    """The words of a database.

    Attributes:
        id: type of a primary key that numbers rows by itself.
        int, real, text, bytes: column types; text sorts by code point.
        table: what follows a table's columns.
        clustered: the same where the rows are kept in the order of the primary key, if the database can.
    """

    id: str
    int: str
    real: str
    text: str
    bytes: str
    table: str
    clustered: str


def statements(types: Types) -> list[str]:
    """Return the statements that make the tables and indices of an empty store."""
    metrics = ",\n    ".join(
        f"{metric.name} {types.real if metric.kind is Kind.SHARE else types.int} NOT NULL" for metric in METRICS
    )
    text = _TABLES.format(
        id=types.id,
        int=types.int,
        text=types.text,
        bytes=types.bytes,
        table=types.table,
        clustered=types.clustered,
        metrics=metrics,
    )
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]


def on_conflict(columns: Collection[str], key: Sequence[str], instead: Mapping[str, str] | None) -> str:
    """Return the clause that overwrites the columns outside `key`."""
    values = {column: f"excluded.{column}" for column in columns if column not in key} | dict(instead or {})
    changes = ", ".join(f"{column} = {value}" for column, value in values.items())
    return f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"


# Times are UTC microseconds. Node ids are unique over all graphs, so that a pair of them belongs to one graph.
_TABLES = """
CREATE TABLE graphs (
    id {id},
    name {text} NOT NULL UNIQUE,
    step_us {int} NOT NULL,
    first_step_us {int},                 -- NULL while no step is closed
    next_step_us {int},                  -- the first step that is not closed
    edges_from_us {int},                 -- edges of closed steps before this are gone
    final_us {int},                      -- no event revises a step before this
    snapshots {int} NOT NULL,
    events {int} NOT NULL,               -- in closed steps
    total_nodes {int} NOT NULL,
    total_edges {int} NOT NULL,
    late {int} NOT NULL
){table};
CREATE TABLE snapshots (
    graph_id {int} NOT NULL,
    step_start_us {int} NOT NULL,
    revision {int} NOT NULL,
    {metrics},
    PRIMARY KEY (graph_id, step_start_us)
){clustered};
CREATE TABLE step_edges (                -- distinct edges of closed steps, see stream.store.edge_blobs
    graph_id {int} NOT NULL,
    step_start_us {int} NOT NULL,
    edges {bytes} NOT NULL,
    PRIMARY KEY (graph_id, step_start_us)
){table};
CREATE TABLE nodes (
    id {id},
    graph_id {int} NOT NULL,
    name {text},                         -- NULL where it was erased
    UNIQUE (graph_id, name)
){table};
CREATE TABLE node_steps (                -- nodes that a closed step has seen
    id {int} PRIMARY KEY,
    first_step_us {int} NOT NULL
){table};
CREATE TABLE edges (                     -- edges that a closed step has seen: src << 32 | dst
    pair {int} PRIMARY KEY,
    first_step_us {int} NOT NULL
){table};
CREATE TABLE open_chunks (               -- events of steps that are not closed, as the commits brought them
    id {id},
    graph_id {int} NOT NULL,
    step_start_us {int} NOT NULL,
    n {int} NOT NULL,                    -- edges in it
    edges {bytes} NOT NULL
){table};
CREATE INDEX open_chunks_by_step ON open_chunks (graph_id, step_start_us);
CREATE TABLE sources (
    id {id},
    name {text} NOT NULL UNIQUE,
    split_by_type {int} NOT NULL,        -- it also feeds a graph for each event type
    ended {int} NOT NULL                 -- a bounded source was read to its end
){table};
CREATE TABLE partitions (
    source_id {int} NOT NULL,
    name {text} NOT NULL,
    owner {int},                         -- the number of the writer that has claimed it
    position {text},                     -- JSON; NULL while nothing was read
    watermark_us {int} NOT NULL,
    max_ts_us {int} NOT NULL,
    events {int} NOT NULL,               -- valid ones, late ones and duplicates included
    late {int} NOT NULL,
    duplicates {int} NOT NULL,
    rejected {int} NOT NULL,
    idle {int} NOT NULL,
    PRIMARY KEY (source_id, name)
){clustered};
CREATE INDEX partitions_by_owner ON partitions (owner);
CREATE TABLE feeders (                   -- which partitions have events of which graphs, in the order they came
    id {id},
    graph_id {int} NOT NULL,
    source_id {int} NOT NULL,
    partition_name {text} NOT NULL,
    UNIQUE (graph_id, source_id, partition_name)
){table};
CREATE INDEX feeders_by_partition ON feeders (source_id, partition_name);
CREATE TABLE event_ids (                 -- BLAKE2b-128 of the ids of events, for deduplication
    graph_id {int} NOT NULL,
    high {int} NOT NULL,
    low {int} NOT NULL,
    ts_us {int} NOT NULL,
    PRIMARY KEY (graph_id, high, low, ts_us)
){clustered};
CREATE INDEX event_ids_by_time ON event_ids (graph_id, ts_us);
CREATE TABLE rejects (                   -- a sample of each source's, of those without a whole record
    source_id {int} NOT NULL,
    number {int} NOT NULL,
    place {text} NOT NULL,
    record {text} NOT NULL,
    reason {text} NOT NULL,
    stage {text} NOT NULL,
    PRIMARY KEY (source_id, number)
){clustered};
CREATE TABLE dead_letters (              -- whole records that were not counted, or not wholly
    id {id},
    source_id {int} NOT NULL,
    topic {text} NOT NULL,
    partition_number {int} NOT NULL,
    record_offset {int} NOT NULL,
    ts_us {int},                         -- the broker's
    key {bytes},
    value {bytes},
    headers {bytes} NOT NULL,            -- MessagePack of [[name, value], ...]
    place {text} NOT NULL,
    reason {text} NOT NULL,
    stage {text} NOT NULL,
    rejected_us {int} NOT NULL,          -- when
    delivered_us {int},                  -- to the dead letter target
    replayed_us {int}                    -- to the topic, on request
){table};
CREATE INDEX dead_letters_to_deliver ON dead_letters (id) WHERE delivered_us IS NULL;
CREATE TABLE projections (name {text} PRIMARY KEY){table};
CREATE TABLE outbox (                    -- snapshots that a projection has not written, see stream.store.outbox
    id {id},
    projection {text} NOT NULL,
    graph_id {int} NOT NULL,
    first_step_us {int} NOT NULL,
    last_step_us {int} NOT NULL
){table};
CREATE INDEX outbox_by_projection ON outbox (projection, id);
"""
