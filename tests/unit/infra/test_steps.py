"""Durations: what is read, and what is refused."""

import pytest

from infra.errors import UsageError
from infra.steps import HOUR_US, LAST_US, MAX_DURATION_US, check_end, format_duration, parse_duration_us


@pytest.mark.parametrize(("text", "step_us"), [("1h", HOUR_US), (" 90 Min ", 90 * 60_000_000), ("2w", 336 * HOUR_US)])
def test_durations_are_read(text: str, step_us: int) -> None:
    assert parse_duration_us(text) == step_us
    assert parse_duration_us(format_duration(step_us)) == step_us


@pytest.mark.parametrize(
    "text", ["", "0h", "-1h", "1.5h", "h", "1y", "10000w", "99999999999w", "9" * 400 + "s", "9" * 5000 + "s"]
)
def test_what_is_no_duration_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        parse_duration_us(text)
    assert parse_duration_us("9999w") == MAX_DURATION_US


def test_steps_that_end_behind_the_last_date_are_refused_with_how_many_do_not() -> None:
    check_end(30, LAST_US - 30 * HOUR_US, HOUR_US)
    with pytest.raises(UsageError, match="31 steps of 1h end behind the year 9999") as caught:
        check_end(31, LAST_US - 30 * HOUR_US, HOUR_US)
    assert caught.value.fix == "ask for at most 30 of them"
    with pytest.raises(UsageError) as caught:
        check_end(1, LAST_US, HOUR_US)
    assert "0" not in str(caught.value.fix)
