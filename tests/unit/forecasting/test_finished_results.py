"""Who may keep a copy of a result that will not change, and for how long."""

import pytest
from starlette.requests import Request

from forecasting.api.finished import MAX_AGE_S, finished_headers, is_known
from forecasting.keys import ANYONE, Key, Scope
from forecasting.service_file import now_us

VARY = "Accept, Authorization"
SOMEONE = Key("a" * 16, "someone", Scope.READ, ("*",))


def asked(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


def test_only_a_service_without_keys_lets_others_keep_it() -> None:
    assert finished_headers(ANYONE, "t", VARY, None)["Cache-Control"] == f"public, max-age={MAX_AGE_S}, immutable"
    kept = finished_headers(SOMEONE, "t", VARY, None)
    assert kept["Cache-Control"] == f"private, max-age={MAX_AGE_S}, immutable"
    assert kept["Vary"] == VARY
    assert kept["ETag"] == '"t"'


@pytest.mark.parametrize(("left_s", "most"), [(10, 10), (-5, 0), (10**6, MAX_AGE_S)])
def test_a_copy_does_not_outlive_the_result(left_s: int, most: int) -> None:
    kept = finished_headers(SOMEONE, "t", VARY, now_us() + left_s * 1_000_000)["Cache-Control"]
    age = int(kept.split("max-age=")[1].partition(",")[0])
    assert max(0, most - 2) <= age <= most


@pytest.mark.parametrize("header", ['"t"', 'W/"t"', '"a", "t"', "*"])
def test_a_known_result_is_not_sent_again(header: str) -> None:
    assert is_known(asked(if_none_match=header), "t")


@pytest.mark.parametrize("header", ["", '"a"', "t", '"t-gzip"'])
def test_another_is(header: str) -> None:
    assert not is_known(asked(if_none_match=header), "t")
