"""Events in batches: a batch that is all bad does not hold up those behind it."""

import json
from typing import Any

import httpx
import pandas as pd
import pytest

from graphtide import ApiError, Taken
from graphtide.results import event_records
from tests.unit.graphtide.client_cases import both_clients, call

GOOD, BAD = {"src": "a", "dst": "b", "ts": 1_772_800_000}, {"src": "a"}


def problem(kind: str, **members: Any) -> httpx.Response:
    return httpx.Response(422, json={"type": f"urn:graphtide:problem:{kind}", "detail": "no", **members})


def take(request: httpx.Request) -> httpx.Response:
    """Answer as the service does."""
    records = [json.loads(line) for line in request.content.splitlines()]
    errors = [{"record": at, "detail": "dst is missing"} for at, one in enumerate(records, 1) if "dst" not in one]
    if len(errors) == len(records):
        return problem("invalid-body", errors=errors, rejected=len(errors))
    told = {"accepted": len(records) - len(errors), "rejected": len(errors), "errors": errors}
    return httpx.Response(202, json=told)


@both_clients
@pytest.mark.parametrize("good_at", [1, 3, 5])
def test_a_batch_without_an_event_is_counted_and_gone_on_behind(is_async: bool, good_at: int) -> None:
    records = [GOOD if number == good_at else BAD for number in range(1, 6)]
    taken = call(is_async, take, "send", "toy", records, batch=2)
    wrong = [number for number in range(1, 6) if number != good_at]
    assert taken == Taken(1, 4, tuple((number, "dst is missing") for number in wrong))


@both_clients
def test_where_no_batch_has_an_event_the_first_refusal_is_raised(is_async: bool) -> None:
    with pytest.raises(ApiError) as refused:
        call(is_async, take, "send", "toy", [BAD] * 5, batch=2)
    assert (refused.value.kind, refused.value.document["rejected"]) == ("invalid-body", 2)


@both_clients
@pytest.mark.parametrize("kind", ["key-reused", "invalid-body"])
def test_what_refuses_a_batch_as_a_whole_ends_the_call(is_async: bool, kind: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return problem(kind) if len(asked) == 2 else take(request)

    with pytest.raises(ApiError) as refused:
        call(is_async, answer, "send", "toy", [GOOD] * 6, batch=2)
    assert (refused.value.kind, len(asked)) == (kind, 2)


@both_clients
def test_a_column_of_lists_goes_along(is_async: bool) -> None:
    sent: list[dict[str, Any]] = []

    def keep(request: httpx.Request) -> httpx.Response:
        sent.extend(json.loads(line) for line in request.content.splitlines())
        return take(request)

    frame = pd.DataFrame([{**GOOD, "tags": ["x", "y"]}, {**GOOD, "tags": None}])
    assert call(is_async, keep, "send", "toy", frame) == Taken(2)
    assert sent == [{**GOOD, "tags": ["x", "y"]}, GOOD]


@pytest.mark.parametrize(
    ("column", "sent"),
    [
        (pd.Series([7, None, 9]), [7, None, 9]),
        (pd.Series([7, None, 9], dtype="Int64"), [7, None, 9]),
        (pd.Series([2**60 + 1, None, 9], dtype="Int64"), [2**60 + 1, None, 9]),
        # What is no row of whole numbers, or lost digits before it came here, goes as it is.
        (pd.Series([7, None, 9.5]), [7.0, None, 9.5]),
        (pd.Series([7, None, float("inf")]), [7.0, None, float("inf")]),
        (pd.Series([2**60 + 1, None, 9]), [float(2**60), None, 9.0]),
        (pd.Series([7.0, 8.0, 9.0]), [7.0, 8.0, 9.0]),
    ],
)
def test_whole_numbers_beside_a_gap_are_sent_as_such(column: Any, sent: list[Any]) -> None:
    found = [record.get("id") for record in event_records(pd.DataFrame({"src": ["a", "b", "c"], "id": column}))]
    assert [(value, type(value)) for value in found] == [(value, type(value)) for value in sent]


@both_clients
@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_without_room_is_refused(is_async: bool, batch: int) -> None:
    with pytest.raises(ValueError, match=f"batch is {batch}, and has to be at least 1"):
        call(is_async, take, "send", "toy", [GOOD], batch=batch)
