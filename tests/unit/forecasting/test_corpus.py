"""Histories of a corpus are those that ingestion makes, and no training series sees what is kept for tests."""

from pathlib import Path

import numpy as np
import pytest

from forecasting.corpus import EventLog
from forecasting.general import DevelopmentLog, log_series, simulated_series
from forecasting.history import read_history
from infra.steps import DAY_US, HOUR_US
from models.sampling import validated_steps
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader

NETWORK = SimulationConfig(years=0.2, events_per_hour=5.0, initial_users=40, communities=4)


@pytest.fixture(scope="module")
def events() -> EventLog:
    return EventLog.read(SimulatedSource(NETWORK))


@pytest.mark.parametrize("step_us", [HOUR_US, 6 * HOUR_US, DAY_US])
def test_a_history_is_what_ingestion_makes(events: EventLog, step_us: int, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    ingest(SimulatedSource(NETWORK, graph="g"), url, IngestOptions(step_us=step_us))
    with open_reader(url) as reader:
        ingested = read_history(reader, "g")
    history = events.history(step_us)
    assert (history.start_us, history.step_us) == (ingested.start_us, ingested.step_us)
    np.testing.assert_array_equal(history.values, ingested.values)


def test_a_part_is_a_smaller_network(events: EventLog) -> None:
    part = events.sent_by_share(0.3, seed=1)
    assert 0 < len(part) < 0.7 * len(events)
    assert set(part.src_E) < set(events.src_E)


def log_of(events: EventLog) -> DevelopmentLog:
    end_us = (int(events.ts_E[-1]) // HOUR_US + 1) * HOUR_US
    return DevelopmentLog("toy", events, end_us, int(events.ts_E[0]) // HOUR_US * HOUR_US + 45 * DAY_US)


def test_no_series_depends_on_the_test_part(events: EventLog) -> None:
    log = log_of(events)
    shifted = EventLog(
        np.where(events.ts_E >= log.train_until_us, events.ts_E + HOUR_US, events.ts_E), events.src_E, events.dst_E
    )
    others = log_series(log_of(shifted), seed=0)
    found = log_series(log, seed=0)
    assert len(found) == len(others) > 20
    for one, other in zip(found, others, strict=True):
        assert one.kind == other.kind
        np.testing.assert_array_equal(one.series.history.values, other.series.history.values)
        end_us = one.series.history.start_us + len(one.series.history) * one.series.history.step_us
        assert end_us <= log.train_until_us


def test_what_is_validated_on_is_in_no_other_series(events: EventLog) -> None:
    found = log_series(log_of(events), seed=0)
    (validated,) = (one.series for one in found if one.series.validation_share > 0)
    kept_from_us = validated.history.start_us + (len(validated.history) - validated_steps(validated)) * HOUR_US
    for one in found:
        history = one.series.history
        if history is not validated.history:
            assert history.start_us + len(history) * history.step_us <= kept_from_us, one.kind
    assert sum(one.series.weight for one in found) == pytest.approx(1.0)


def test_simulated_networks_differ_and_repeat() -> None:
    first, again = (list(simulated_series(2, seed=5)) for _ in range(2))
    assert {one.kind.split()[0] for one in first} == {"whole", "cut"}
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.series.history.values, other.series.history.values)
