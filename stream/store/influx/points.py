"""Snapshots as points: measurements, tags, fields and their types, in line protocol.

A point is known by its measurement, tags and time, so writing it again replaces it. InfluxDB merges the fields of both
versions; every field is written every time, so that nothing of an older revision stays.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import quote, unquote

from infra.errors import StoreError
from infra.schema import METRIC_NAMES, METRICS, SCHEMA_VERSION, Kind
from infra.steps import format_duration
from stream.store.base import GraphInfo, SnapshotTable

# One point a step, at its start; tags graph, step and schema; the metrics and the revision as fields.
SNAPSHOTS = "graphtide_snapshots"
# One point a graph, at the epoch; tags graph and schema; what cannot be told from the snapshots alone.
GRAPHS = "graphtide_graphs"
GRAPHS_TIME_US = 0
# Stands for a time that is not there yet: a field that is left out would keep its old value.
NO_TIME_US = -(2**62)
# The largest count that a float64, which is what readers get, holds exactly.
MAX_COUNT = 2**53

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
    head = f"{SNAPSHOTS},graph={_tag(table.graph)},schema={SCHEMA_VERSION},step={format_duration(table.step_us)}"
    writes = [(f"{metric.name}=", _share if metric.kind is Kind.SHARE else _count) for metric in METRICS]
    rows = zip(table.step_start_us.tolist(), table.revision.tolist(), table.values.tolist(), strict=True)
    for start_us, revision, values in rows:
        fields = ",".join([name + write(value) for (name, write), value in zip(writes, values, strict=True)])
        yield f"{head} {fields},revision={revision}i {start_us}"


def facts_line(info: GraphInfo) -> str:
    """Return the line of a graph's facts; its time is in microseconds."""
    facts = ((name, getattr(info, name)) for name in FACT_FIELDS)
    written = ",".join(f"{name}={NO_TIME_US if value is None else value}i" for name, value in facts)
    return f"{GRAPHS},graph={_tag(info.name)},schema={SCHEMA_VERSION} {written} {GRAPHS_TIME_US}"


def info_of_facts(tag: str, facts: Mapping[str, int]) -> GraphInfo:
    """Return a graph from its tag and what `FACT_FIELDS` are there."""
    known: dict[str, Any] = {name: None if value == NO_TIME_US else value for name, value in facts.items()}
    return GraphInfo(graph_of_tag(tag), **known)


def _tag(graph: str) -> str:
    return tag_of_graph(graph).translate(_TAG_ESCAPES)


def _is_plain(char: str) -> bool:
    return char in _PLAIN_ASCII or (char > "\x7f" and char <= "\uffff" and char.isalnum())


def _count(value: float) -> str:
    if not value.is_integer() or abs(value) > MAX_COUNT:
        raise StoreError(f"a count of {value!r} cannot be kept exactly", fix="this should not happen: please report it")
    return f"{int(value)}i"


def _share(value: float) -> str:
    if not math.isfinite(value):
        raise StoreError(f"a share of {value!r} cannot be kept", fix="this should not happen: please report it")
    # Python writes the shortest text that reads back as the same number.
    return repr(value)
