"""Rollouts are shared, and a shorter forecast is the beginning of a longer one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from forecasting.api.cache import Answer, AnswerCache
from forecasting.live import LiveState
from forecasting.rollouts import Rollouts
from infra.errors import ModelError
from models.contract import FloatArray, ForecastChunk
from tests.unit.forecasting.forecast_cases import some_forecast


@dataclass
class CountingModel:
    """Rolls out one fixed forecast; counts the chunks, and fails at the chunk `fails_at`."""

    name: str = "counting"
    chunks: int = 0
    fails_at: int = -1

    def start(self, step_us: int, start_us: int) -> None:
        return None

    def update(self, state: None, values: FloatArray) -> None:
        return None

    def rollout(
        self, state: None, horizon_steps: int, *, chunk_steps: int = 1024, seed: int = 0
    ) -> Iterator[ForecastChunk]:
        whole = some_forecast(horizon_steps)
        for first in range(0, horizon_steps, chunk_steps):
            if self.chunks == self.fails_at:
                self.fails_at = -1
                raise ModelError("no forecast")
            self.chunks += 1
            end = first + chunk_steps
            yield ForecastChunk(first, whole.mean[first:end], whole.quantiles[first:end])


def live_of(model: CountingModel, digest: str = "d", graph: str = "g") -> LiveState:
    return LiveState(graph, 1, 0, 1, digest, model, None)


def rollouts(keep: int = 4) -> Rollouts:
    return Rollouts(block_steps=10, max_steps=30, keep=keep)


def test_shorter_forecasts_begin_the_longer_one_and_nothing_is_rolled_out_twice() -> None:
    model = CountingModel()
    kept, live = rollouts(), live_of(model)
    short = kept.steps(live, 7, seed=0)
    assert model.chunks == 1
    whole = kept.steps(live, 25, seed=0)
    assert model.chunks == 3
    assert (len(short), len(whole)) == (7, 25)
    assert np.array_equal(whole.forecast.quantiles[:7], short.forecast.quantiles)
    assert np.array_equal(kept.steps(live, 30, seed=0).forecast.mean, some_forecast(30).mean)
    assert model.chunks == 3


def test_a_new_state_of_a_graph_takes_the_place_of_the_old_one() -> None:
    model = CountingModel()
    kept = rollouts()
    for digest in ("a", "b", "a"):
        kept.steps(live_of(model, digest), 5, seed=0)
    assert model.chunks == 3
    kept.steps(live_of(model, "a", graph="other"), 5, seed=0)
    kept.steps(live_of(model, "a"), 5, seed=0)
    assert model.chunks == 4


def test_a_failed_rollout_is_not_kept() -> None:
    model = CountingModel(fails_at=1)
    kept, live = rollouts(), live_of(model)
    with pytest.raises(ModelError):
        kept.steps(live, 25, seed=0)
    assert len(kept.steps(live, 25, seed=0)) == 25


def test_few_rollouts_are_kept() -> None:
    model = CountingModel()
    kept = rollouts(keep=1)
    first, second = live_of(model), replace(live_of(model), graph="h")
    for live in (first, second, first):
        kept.steps(live, 5, seed=0)
    assert model.chunks == 3


def test_answers_are_kept_for_a_time_within_their_bytes() -> None:
    now = [0.0]
    cache = AnswerCache(max_bytes=4000, lifetime_s=10, clock=lambda: now[0])
    answers = {name: Answer(name.encode() * 500, name) for name in "abcd"}
    for name in "ab":
        cache.put((name, 1), answers[name])
    assert cache.get(("a", 1)) is answers["a"]
    cache.put(("c", 1), answers["c"])
    assert cache.get(("b", 1)) is None, "the one used least recently goes first"
    assert cache.get(("a", 1)) is answers["a"]
    cache.forget("a")
    assert cache.get(("a", 1)) is None
    now[0] = 10.0
    assert cache.get(("c", 1)) is None
    assert cache.size_bytes == 0
    cache.put(("d", 1), Answer(b"x" * 5000, "d"))
    assert cache.size_bytes == 0, "one that does not fit is not kept"


def test_a_cache_without_a_lifetime_keeps_nothing() -> None:
    cache = AnswerCache(max_bytes=4000, lifetime_s=0)
    cache.put(("a",), Answer(b"", "a"))
    assert cache.get(("a",)) is None
