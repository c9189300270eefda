"""Any text becomes a value within its limits, or a problem that names the field, its limits and an example."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from forecasting.api import parameters
from forecasting.api.problems import Problem
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS
from infra.steps import HOUR_US, LAST_US
from stream.store.base import GraphInfo

TEXTS = st.text(max_size=40) | st.from_regex(r"[0-9.,+\-eE :TZ]{1,30}", fullmatch=True)


def value_or_none(parse: Callable[[], Any], field: str) -> Any:
    try:
        return parse()
    except Problem as problem:
        (error,) = problem.document["errors"]
        assert problem.status == 422
        assert error["field"] == field
        assert error["allowed"]
        assert error["example"]
        return None


@given(TEXTS)
def test_whole_numbers(text: str) -> None:
    found = value_or_none(lambda: parameters.whole_number("horizon", text, 1, 168, example=24), "horizon")
    assert found is None or (1 <= found <= 168 and str(found) == text.lstrip("0"))


@given(st.integers(-1000, 1000))
def test_whole_numbers_within_the_limits_are_taken(number: int) -> None:
    found = value_or_none(lambda: parameters.whole_number("horizon", str(number), 1, 168, example=24), "horizon")
    assert found == (number if 1 <= number <= 168 else None)


@given(TEXTS)
def test_times(text: str) -> None:
    found = value_or_none(lambda: parameters.time_us("start", text), "start")
    assert found is None or isinstance(found, int)


@given(st.datetimes(), st.none() | st.integers(-14 * 60, 14 * 60))
def test_times_of_iso_8601_are_taken(moment: datetime, ahead_minutes: int | None) -> None:
    zone = None if ahead_minutes is None else timezone(timedelta(minutes=ahead_minutes))
    text = moment.replace(tzinfo=zone).isoformat()
    us = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) - (ahead_minutes or 0) * 60_000_000
    assert parameters.time_us("start", text) == parameters.time_us("start", text.replace("+", " ")) == us


@given(st.lists(st.sampled_from(METRIC_NAMES) | TEXTS, max_size=5))
def test_metrics(names: list[str]) -> None:
    found = value_or_none(lambda: parameters.metric_names("metrics", names), "metrics")
    assert found is None or set(found) == set(names)


@given(st.lists(st.sampled_from(METRIC_NAMES), min_size=1))
def test_metrics_are_taken_in_their_order(names: list[str]) -> None:
    assert parameters.metric_names("metrics", names) == tuple(dict.fromkeys(names))


@given(st.lists(st.sampled_from(QUANTILE_LEVELS) | TEXTS | st.booleans() | st.none() | st.floats(), max_size=5))
def test_quantiles(levels: list[object]) -> None:
    found = value_or_none(lambda: parameters.quantile_levels("quantiles", levels), "quantiles")
    assert found is None or (set(found) <= set(QUANTILE_LEVELS) and list(found) == sorted(set(found)))


@given(st.lists(st.sampled_from(QUANTILE_LEVELS), min_size=1), st.booleans())
def test_quantiles_are_taken_as_numbers_and_as_texts(levels: list[float], as_texts: bool) -> None:
    given_levels = [str(level) if as_texts else level for level in levels]
    assert parameters.quantile_levels("quantiles", given_levels) == tuple(sorted(set(levels)))


@pytest.mark.parametrize(
    ("text", "us"), [("1970-01-02", 86_400_000_000), ("1970-01-01T01:00:00 01:00", 0), ("1970-01-01T00:00:01Z", 10**6)]
)
def test_times_as_they_arrive(text: str, us: int) -> None:
    assert parameters.time_us("start", text) == us


def request(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


def test_unknown_and_repeated_parameters_are_named() -> None:
    assert parameters.query(request("a=1&b=2"), ("a", "b")) == {"a": "1", "b": "2"}
    with pytest.raises(Problem, match="did you mean horizon"):
        parameters.query(request("horizn=1"), ("horizon", "metrics"))
    with pytest.raises(Problem, match="once"):
        parameters.query(request("a=1&a=2"), ("a",))
    with pytest.raises(Problem, match="no parameter at all"):
        parameters.query(request("a=1"), ())


def graph(last_step_us: int | None) -> GraphInfo:
    return GraphInfo("g", HOUR_US, 30, 30, 0, last_step_us, 0)


def test_forecasts_reach_no_further_than_the_year_9999() -> None:
    parameters.check_reach(graph(None), 36_500)
    parameters.check_reach(graph(LAST_US - 11 * HOUR_US), 10)
    with pytest.raises(Problem, match="horizon cannot be '11': give a whole number from 1 to 10") as caught:
        parameters.check_reach(graph(LAST_US - 11 * HOUR_US), 11)
    assert caught.value.document["maximum"] == 10
    with pytest.raises(Problem, match="give another graph"):
        parameters.check_reach(graph(LAST_US), 1)


def test_a_member_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(Problem) as caught:
        parameters.json_number("horizon", None, 1, 9, 5)
    document = caught.value.document
    assert document["detail"] == "horizon is missing: give a whole number from 1 to 9"
    assert document["errors"] == [{"field": "horizon", "allowed": "a whole number from 1 to 9", "example": 5}]
    with pytest.raises(Problem, match="horzon cannot be 'null'"):
        parameters.json_object(b'{"horzon": null}', ("horizon",), {})


def test_a_number_that_is_text_in_json_is_told_from_one_outside_the_limits() -> None:
    with pytest.raises(Problem) as text:
        parameters.json_number("horizon", "5", 1, 9, 5)
    assert text.value.document["detail"] == "horizon cannot be '5': give a whole number from 1 to 9, not as text"
    with pytest.raises(Problem) as outside:
        parameters.json_number("horizon", 10, 1, 9, 5)
    assert outside.value.document["detail"] == "horizon cannot be '10': give a whole number from 1 to 9"
