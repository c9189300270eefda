"""Where the model makes no forecast the floor answers, whatever else happens to the state at that moment."""

import asyncio
from collections.abc import Hashable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forecasting.api.cache import Answer
from forecasting.api.computing import WorkFailedError
from forecasting.api.problems import Problem
from forecasting.api.service import Service
from forecasting.api.short_forecasts import ShortForecast, short_forecast
from forecasting.live import LiveState

WANTED = ShortForecast(1, ("events",), (0.5,), seed=0)
FROM_MODEL = LiveState("g", 1, 0, 1, "d1", cast(Any, SimpleNamespace(name="mamba2")), None, model_digest="w")
FROM_FLOOR = replace(
    FROM_MODEL, model=cast(Any, SimpleNamespace(name="profile_level")), model_digest=None, degraded_reason="it failed"
)


def answered(first: LiveState, *instead: LiveState, floor_fails: bool = False) -> LiveState:
    """Return the state that is answered from where models fail and `degrade` returns one of `instead` after another."""
    left = list(instead)

    async def answer(key: tuple[Hashable, ...], _make: object, *, anew: bool) -> Answer:
        if floor_fails or "mamba2" in key:
            raise WorkFailedError
        return Answer(b"{}", "tag")

    async def within_deadline(work: Any) -> Any:
        return await asyncio.wait_for(work, 10)

    async def state_of(_graph: str) -> LiveState:
        return first

    async def degrade(_failed: LiveState, _reason: str) -> LiveState:
        return left.pop(0)

    parts = {
        "computing": SimpleNamespace(answer=answer, kept=lambda _key: None, within_deadline=within_deadline),
        "following": SimpleNamespace(live=lambda _graph: None, state_of=state_of, degrade=degrade),
    }
    live, _ = asyncio.run(short_forecast(cast(Service, SimpleNamespace(**parts)), "g", WANTED))
    return live


def test_the_floor_answers_in_the_place_of_a_model_that_fails() -> None:
    assert answered(FROM_MODEL, FROM_FLOOR) == FROM_FLOOR


def test_it_does_so_where_the_state_moved_meanwhile() -> None:
    assert answered(FROM_MODEL, replace(FROM_MODEL, digest="d2"), FROM_FLOOR) == FROM_FLOOR


def test_it_does_so_in_the_place_of_a_model_that_stands_in_for_another() -> None:
    stands_in = replace(FROM_MODEL, degraded_reason="the model of 'g' cannot be used")
    assert answered(stands_in, FROM_FLOOR) == FROM_FLOOR


def test_where_the_floor_fails_too_that_is_said() -> None:
    with pytest.raises(Problem) as told:
        answered(FROM_MODEL, FROM_FLOOR, floor_fails=True)
    assert told.value.status == 500
