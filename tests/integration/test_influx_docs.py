"""The queries of docs/influxdb.md answer as the page says."""

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stream.store.influx.address import InfluxAddress
from stream.store.influx.connection import Connection
from stream.store.projector import Projector
from tests import plain_http
from tests.servers.influxdb import InfluxDatabase
from tests.unit.stream.projection_cases import MemoryStore, some_snapshots

PAGE = (Path(__file__).parents[2] / "docs" / "influxdb.md").read_text()
PAGE_OF_GRAFANA = Path(__file__).parents[2] / "docs" / "grafana.md"
MARCH_US = int(datetime(2016, 3, 1, tzinfo=UTC).timestamp()) * 1_000_000
# How many rows the queries give for a week of hours in which three steps were revised, in the order of the page.
FLUX_ROWS = [25, 8, 3, 1]
INFLUXQL_ROWS = [24, 7, 1]


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def address(influxdb: InfluxDatabase) -> Iterator[InfluxAddress]:
    store = MemoryStore()
    store.add(some_snapshots("mathoverflow", 24 * 8, start_us=MARCH_US))
    store.revise("mathoverflow", 50, steps=3)
    address = InfluxAddress(url=influxdb.url, org=influxdb.org, bucket=influxdb.bucket, token=influxdb.token)
    with Projector(lambda: store, lambda: store, address) as projector:
        assert projector.drain(60).drained
    yield address


def test_every_flux_example_answers(address: InfluxAddress) -> None:
    rows = []
    with Connection(address) as connection:
        for query in examples("flux"):
            answer = connection.query(query.replace("graphtide/autogen", address.bucket)).decode()
            assert answer.strip(), query
            assert "error" not in answer, answer
            rows.append(len(list(csv.DictReader(io.StringIO(answer.strip())))))
    assert rows == FLUX_ROWS


def test_the_query_for_grafana_answers(address: InfluxAddress) -> None:
    (query,) = re.findall(r"```flux\n(.*?)```", PAGE_OF_GRAFANA.read_text(), re.DOTALL)
    for name, time in (("Start", "2016-03-05T00:00:00Z"), ("Stop", "2016-03-05T23:00:00Z")):
        assert f"v.timeRange{name}" in query
        query = query.replace(f"v.timeRange{name}", time)
    with Connection(address) as connection:
        answer = connection.query(query.replace("graphtide/autogen", address.bucket)).decode()
    rows = [row for row in csv.DictReader(io.StringIO(answer.strip())) if row["_field"] in ("events", "active_nodes")]
    assert len(rows) == 2 * 24  # InfluxDB 1.8 counts the stop


def test_every_influxql_example_answers(address: InfluxAddress) -> None:
    rows = []
    database = address.bucket.removesuffix("/autogen")
    for query in examples("sql"):
        reply = plain_http.get(f"{address.url}/query", params={"db": database, "q": query}, trust_env=False, timeout=30)
        (series,) = reply.json()["results"][0]["series"]
        assert all(value is not None for row in series["values"] for value in row), query
        rows.append(len(series["values"]))
    assert rows == INFLUXQL_ROWS
