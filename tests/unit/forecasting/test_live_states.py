"""Live states equal what encoding the whole history anew gives, to the last bit, however the history came about."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from forecasting.live import LiveState, LiveStates
from infra.errors import StoreError
from infra.schema import METRIC_INDEX, METRIC_NAMES
from infra.steps import HOUR_US
from models import checkpoint
from models.calibration import Calibration
from models.contract import BLOCK_STEPS, FloatArray
from models.forecaster import ForecasterConfig, ForecasterNet
from models.ranks import default_structure, structure_json
from stream.store.base import GraphInfo, SnapshotTable
from tests.unit.forecasting.forecast_cases import START_US, some_history

EVENTS = METRIC_INDEX["events"]
ALL = some_history(4 * BLOCK_STEPS).values


@dataclass
class FakeStore:
    """A `SnapshotReader` over one array; it counts the rows that were read, and fails while `broken`."""

    values: FloatArray
    rows_read: int = 0
    broken: bool = False
    names: list[str] = field(default_factory=lambda: ["g"])

    def graphs(self) -> list[GraphInfo]:
        return [self.graph(name) for name in self.names]

    def graph(self, name: str) -> GraphInfo:
        if self.broken or name not in self.names:
            raise StoreError("broken" if self.broken else "no such graph")
        last_us = START_US + (len(self.values) - 1) * HOUR_US if len(self.values) else None
        events = int(self.values[:, EVENTS].sum())
        return GraphInfo(name, HOUR_US, len(self.values), events, START_US if len(self.values) else None, last_us, 0)

    def snapshots(
        self,
        name: str,
        *,
        start_us: int | None = None,
        end_us: int | None = None,
        metrics: tuple[str, ...] | None = None,
        last: int | None = None,
    ) -> SnapshotTable:
        self.graph(name)
        begin = 0 if start_us is None else (start_us - START_US) // HOUR_US
        values = self.values[begin:]
        self.rows_read += len(values)
        starts = START_US + HOUR_US * np.arange(begin, begin + len(values))
        return SnapshotTable(name, HOUR_US, METRIC_NAMES, starts, np.zeros(len(values), dtype=np.int64), values)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save_small(tmp_path)
    return tmp_path


def save_small(folder: Path, seed: int = 3, step_us: int = HOUR_US) -> None:
    net = ForecasterNet(ForecasterConfig(d_model=16, n_layers=1, d_state=8, headdim=16), seed=seed)
    card = {
        "name": "mamba2",
        "data": [{"step_us": step_us}],
        "season_steps": 168,
        "ranks": structure_json(default_structure(168)),
        "calibration": Calibration.none().to_json(),
    }
    checkpoint.save(folder / "g", net, card)


def states_of(store: FakeStore, models: Path, max_graphs: int = 8) -> LiveStates:
    return LiveStates(lambda: store, models, max_graphs=max_graphs)


def forecast(live: LiveState) -> FloatArray:
    (chunk,) = live.model.rollout(live.state, 24)
    return chunk.quantiles


def assert_same(live: LiveState, other: LiveState) -> None:
    assert live.key == other.key
    assert (live.next_step_us, live.snapshots) == (other.next_step_us, other.snapshots)
    assert np.array_equal(forecast(live), forecast(other))


@pytest.mark.parametrize("with_model", [True, False])
def test_growing_equals_encoding_anew(models: Path, tmp_path: Path, with_model: bool) -> None:
    folder = models if with_model else tmp_path / "none"
    store = FakeStore(ALL[:1])
    followed = states_of(store, folder)
    for steps in (
        1,
        5,
        BLOCK_STEPS - 1,
        BLOCK_STEPS,
        2 * BLOCK_STEPS,
        2 * BLOCK_STEPS + 1,
        700,
        701,
        800,
        4 * BLOCK_STEPS,
    ):
        store.values = ALL[:steps]
        live = followed.state_of("g")
        assert_same(live, states_of(FakeStore(ALL[:steps]), folder).state_of("g"))
        assert live.next_step_us == START_US + steps * HOUR_US
        # Without one of its own, the general model answers as soon as there is a season to go by.
        assert (live.degraded_reason is None) == (with_model or steps >= 168)


def test_growth_reads_and_replays_only_the_tail(models: Path) -> None:
    store = FakeStore(ALL[:-1])
    followed = states_of(store, models)
    followed.state_of("g")
    store.rows_read = 0
    assert followed.state_of("g").snapshots == len(ALL) - 1
    assert store.rows_read == 0
    store.values = ALL
    assert followed.state_of("g").snapshots == len(ALL)
    assert 0 < store.rows_read <= 2 * BLOCK_STEPS


@pytest.mark.parametrize("steps_back", [1, BLOCK_STEPS + 3, 3 * BLOCK_STEPS])
def test_a_revision_is_seen_wherever_it_lies(models: Path, steps_back: int) -> None:
    store = FakeStore(ALL.copy())
    followed = states_of(store, models)
    before = followed.state_of("g")
    revised = ALL.copy()
    revised[-steps_back, EVENTS] += 40
    store.values = revised
    after = followed.state_of("g")
    assert after.digest != before.digest
    assert_same(after, states_of(FakeStore(revised), models).state_of("g"))


def test_a_store_made_anew_with_less_in_it(models: Path) -> None:
    store = FakeStore(ALL)
    followed = states_of(store, models)
    followed.state_of("g")
    store.values = ALL[:100]
    assert_same(followed.state_of("g"), states_of(FakeStore(ALL[:100]), models).state_of("g"))


def test_a_new_model_takes_over(models: Path) -> None:
    followed = states_of(FakeStore(ALL[:300]), models)
    before = followed.state_of("g")
    save_small(models, seed=9)
    after = followed.state_of("g")
    assert after.model_digest != before.model_digest
    assert after.digest == before.digest
    assert not np.array_equal(forecast(after), forecast(before))


def test_a_young_graph_has_a_floor_then_the_general_model_then_its_own(tmp_path: Path) -> None:
    store = FakeStore(ALL[:100])
    followed = states_of(store, tmp_path)
    live = followed.state_of("g")
    assert (live.model.name, live.model_digest, live.calibrated_until_step) == ("profile_level", None, None)
    assert live.calibrated_on is None
    assert "steps are too few" in str(live.degraded_reason)
    store.values = ALL[:110]
    again = states_of(store, tmp_path).state_of("g")
    assert (again.snapshots, again.degraded_reason) == (110, followed.state_of("g").degraded_reason)
    store.values = ALL[:300]
    live = followed.state_of("g")
    assert (live.model.name, live.degraded_reason) == ("mamba2-general", None)
    assert live.calibrated_until_step
    assert live.calibrated_on == "other graphs"
    save_small(tmp_path)
    live = followed.state_of("g")
    assert (live.model.name, live.calibrated_on) == ("mamba2", "this graph")


def test_a_model_for_other_steps_or_with_damaged_files_is_not_used(models: Path) -> None:
    save_small(models, step_us=HOUR_US // 4)
    live = states_of(FakeStore(ALL[:300]), models).state_of("g")
    assert "15m" in str(live.degraded_reason)
    assert (live.model.name, live.calibrated_on) == ("mamba2-general", "other graphs")
    (models / "g" / checkpoint.CARD_NAME).write_text("{")
    assert "corrupt" in str(states_of(FakeStore(ALL[:300]), models).state_of("g").degraded_reason)


def test_a_model_that_failed_stays_out_until_its_files_change(models: Path) -> None:
    store = FakeStore(ALL[:300])
    followed = states_of(store, models)
    followed.state_of("g")
    failed = followed.degrade("g", "it failed")
    assert (failed.degraded_reason, failed.calibrated_on) == ("it failed", None)
    store.values = ALL[:301]
    assert followed.state_of("g").degraded_reason == "it failed"
    save_small(models, seed=9)
    assert followed.state_of("g").degraded_reason is None


def test_a_store_that_fails_for_a_while_costs_no_state(models: Path) -> None:
    store = FakeStore(ALL[:-1])
    followed = states_of(store, models)
    followed.state_of("g")
    store.broken = True
    with pytest.raises(StoreError):
        followed.state_of("g")
    store.broken, store.rows_read, store.values = False, 0, ALL
    assert followed.state_of("g").snapshots == len(ALL)
    assert store.rows_read <= 2 * BLOCK_STEPS


def test_the_states_of_few_graphs_are_kept(models: Path) -> None:
    store = FakeStore(ALL[:10], names=["a", "b", "c"])
    followed = states_of(store, models, max_graphs=2)
    for name in ("a", "b", "a", "c"):
        followed.state_of(name)
    assert followed.tracked() == ["a", "c"]
