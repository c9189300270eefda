"""Snapshots as points: measurements, tags, fields and their types, in line protocol.

A point is known by its measurement, tags and time, so writing it again replaces it. InfluxDB merges the fields of both
versions; every field is written every time, so that nothing of an older revision stays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from infra.errors import StoreError
from infra.schema import METRIC_NAMES, METRICS, SCHEMA_VERSION, Kind
from infra.steps import format_duration
from stream.store.base import GraphInfo, SnapshotTable

# One point a step, at its start; tags graph, step and schema; the metrics and the revision as fields.
SNAPSHOTS = "graphtide_snapshots"
# One point a graph, at the epoch; tags graph and schema; what cannot be told from the snapshots alone.
GRAPHS = "graphtide_graphs"
GRAPHS_TIME_US = 0
# One point a graph beside it, written before all others: the identity of the store of record that writes the graph.
# A measurement of its own, so that readers find no graph whose facts are not there yet.
STORES = "graphtide_stores"
# Stands for a time that is not there yet: a field that is left out would keep its old value.
NO_TIME_US = -(2**62)
# The largest count that a float64, which is what readers get, holds exactly.
MAX_COUNT = 2**53

_COUNTS = np.array([metric.kind is not Kind.SHARE for metric in METRICS])
# Python writes the shortest text that reads back as the same number.
_FIELDS = ",".join(f"{metric.name}=%{'r' if metric.kind is Kind.SHARE else 'di'}" for metric in METRICS)
_FIELDS += ",revision=%di %d"
_TAG_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_PLAIN_ASCII = frozenset(map(chr, range(0x20, 0x7F))) - {"%", "\\"}


# What `GraphInfo` says of a graph, but for its name.
FACT_FIELDS = tuple(field.name for field in fields(GraphInfo) if field.name != "name")


def tag_of_graph(name: str) -> str:
    """Return the tag value of a graph's name: the name itself, with odd characters percent-encoded.

    Event types, which are part of the names of split graphs, may hold any text. Line protocol cannot carry a backslash
    at the end of a tag, and InfluxDB 2 drops points whose tags hold characters that it takes for unprintable.
    """
    return "".join(char if _is_plain(char) else quote(char, safe="") for char in name)


def graph_of_tag(tag: str) -> str:
    """Return the name of a graph from its tag value."""
    return unquote(tag)


def snapshot_lines(table: SnapshotTable) -> Iterator[str]:
    """Yield a line for each snapshot; times are in microseconds.

    Args:
        table: snapshots of one graph, with all metrics in the schema's order.

    Raises:
        StoreError: a value cannot be kept exactly.
    """
    if table.metrics != METRIC_NAMES:
        raise ValueError("all metrics have to be written at once")
    head = f"{SNAPSHOTS},graph={_tag(table.graph)},schema={SCHEMA_VERSION},step={format_duration(table.step_us)} "
    counts, shares = table.values[:, _COUNTS], table.values[:, ~_COUNTS]
    for bad in counts[(counts != np.trunc(counts)) | ~(np.abs(counts) <= MAX_COUNT)][:1].tolist():
        raise StoreError(f"a count of {bad!r} cannot be kept exactly", fix="this should not happen: please report it")
    for bad in shares[~np.isfinite(shares)][:1].tolist():
        raise StoreError(f"a share of {bad!r} cannot be kept", fix="this should not happen: please report it")
    columns = [
        (values.astype(np.int64) if is_count else values).tolist()
        for values, is_count in zip(table.values.T, _COUNTS.tolist(), strict=True)
    ]
    for row in zip(*columns, table.revision.tolist(), table.step_start_us.tolist(), strict=True):
        yield head + _FIELDS % row


def facts_line(info: GraphInfo) -> str:
    """Return the line of a graph's facts; its time is in microseconds."""
    facts = ((name, getattr(info, name)) for name in FACT_FIELDS)
    written = ",".join(f"{name}={NO_TIME_US if value is None else value}i" for name, value in facts)
    return f"{GRAPHS},graph={_tag(info.name)},schema={SCHEMA_VERSION} {written} {GRAPHS_TIME_US}"


def claim_line(graph: str, store_id: str) -> str:
    """Return the line that says which store of record writes a graph; its time is in microseconds."""
    return f'{STORES},graph={_tag(graph)},schema={SCHEMA_VERSION} store="{store_id}" {GRAPHS_TIME_US}'


def info_of_facts(tag: str, facts: Mapping[str, int]) -> GraphInfo:
    """Return a graph from its tag and what `FACT_FIELDS` are there."""
    known: dict[str, Any] = {name: None if value == NO_TIME_US else value for name, value in facts.items()}
    return GraphInfo(graph_of_tag(tag), **known)


def _tag(graph: str) -> str:
    return tag_of_graph(graph).translate(_TAG_ESCAPES)


def _is_plain(char: str) -> bool:
    return char in _PLAIN_ASCII or (char > "\x7f" and char <= "\uffff" and char.isalnum())
