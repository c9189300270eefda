"""Snapshots as line protocol: whatever the name and the numbers, they are read back as they were."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import StoreError
from infra.schema import METRIC_NAMES, METRICS, Kind
from infra.steps import HOUR_US
from stream.store.base import GraphInfo
from stream.store.influx.flux import quoted
from stream.store.influx.points import (
    FACT_FIELDS,
    NO_TIME_US,
    facts_line,
    graph_of_tag,
    info_of_facts,
    snapshot_lines,
    tag_of_graph,
)
from tests.unit.stream.projection_cases import some_snapshots

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)
COUNTS = st.integers(0, 2**53)
SHARES = st.floats(0, 1)


def parsed(line: str) -> tuple[str, dict[str, str], dict[str, str], int]:
    """Return measurement, tags, fields and time of a line, as the reference of line protocol says."""
    head, fields, time = re.split(r"(?<!\\) ", line)
    measurement, *tags = re.split(r"(?<!\\),", head)
    pairs = (re.split(r"(?<!\\)=", tag) for tag in tags)
    unescaped = {key: re.sub(r"\\([,= ])", r"\1", value) for key, value in pairs}
    return measurement, unescaped, dict(field.split("=") for field in fields.split(",")), int(time)


@given(NAMES)
def test_any_name_is_read_back_and_its_tag_is_safe(name: str) -> None:
    tag = tag_of_graph(name)
    assert graph_of_tag(tag) == name
    assert "\\" not in tag
    assert all(char == " " or not char.isspace() for char in tag)
    line = next(iter(snapshot_lines(some_snapshots(name, 1))))
    measurement, tags, _, _ = parsed(line)
    assert measurement == "graphtide_snapshots"
    assert tags == {"graph": tag, "schema": "1", "step": "1h"}


@pytest.mark.parametrize("name", ["default", "maths.2024_x-y", "toy:reply", "toy:sent to", "toy:Répond", "toy:a,b=c"])
def test_usual_names_are_their_own_tags(name: str) -> None:
    assert tag_of_graph(name) == name


def test_two_names_never_share_a_tag() -> None:
    assert tag_of_graph("a:%5C") != tag_of_graph("a:\\")


@given(st.lists(st.tuples(*(SHARES if metric.kind is Kind.SHARE else COUNTS for metric in METRICS)), min_size=1))
def test_numbers_are_read_back_exactly(rows: list[tuple[float, ...]]) -> None:
    table = replace(some_snapshots("toy", len(rows)), values=np.array(rows, dtype=np.float64))
    for line, row, start_us in zip(snapshot_lines(table), rows, table.step_start_us.tolist(), strict=True):
        _, _, fields, time = parsed(line)
        assert time == start_us
        assert list(fields) == [*METRIC_NAMES, "revision"]
        assert fields.pop("revision") == "0i"
        for metric, value in zip(METRICS, row, strict=True):
            text = fields[metric.name]
            assert text.endswith("i") == (metric.kind is not Kind.SHARE)
            assert float(text.removesuffix("i")) == value


@pytest.mark.parametrize(("metric", "value"), [("events", 2.0**54), ("events", 0.5), ("reciprocity", math.nan)])
def test_a_number_that_cannot_be_kept_is_refused(metric: str, value: float) -> None:
    table = some_snapshots("toy", 1)
    table.values[0, METRIC_NAMES.index(metric)] = value
    with pytest.raises(StoreError, match="cannot be kept"):
        list(snapshot_lines(table))


def test_some_metrics_alone_are_refused() -> None:
    table = replace(some_snapshots("toy", 1), metrics=("events",))
    with pytest.raises(ValueError, match="all metrics"):
        list(snapshot_lines(table))


@given(NAMES, st.integers(0, 2**53), st.none() | st.integers(-(2**50), 2**50))
def test_facts_are_read_back(name: str, count: int, time_us: int | None) -> None:
    info = GraphInfo(name, HOUR_US, count, count, time_us, time_us, count)
    measurement, tags, fields, time = parsed(facts_line(info))
    assert (measurement, tags, time) == ("graphtide_graphs", {"graph": tag_of_graph(name), "schema": "1"}, 0)
    assert list(fields) == list(FACT_FIELDS)
    assert info_of_facts(tags["graph"], {key: int(text.removesuffix("i")) for key, text in fields.items()}) == info
    assert (time_us is None) == (fields["first_step_us"] == f"{NO_TIME_US}i")


def test_a_text_of_flux_cannot_end_or_compute() -> None:
    assert quoted('a"b') == r'"a\"b"'
    assert quoted("${x}\\") == r'"\${x}\\"'


def test_every_fact_of_a_graph_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/influxdb.md").read_text(encoding="utf-8")
    told = page.partition("Measurement `graphtide_graphs`")[2].partition("\n\n")[0]
    assert {name for name in FACT_FIELDS if f"`{name}`" not in told} == set()
