"""Durations: what is read, and what is refused."""

import pytest

from infra.errors import UsageError
from infra.steps import HOUR_US, MAX_DURATION_US, format_duration, parse_duration_us


@pytest.mark.parametrize(("text", "step_us"), [("1h", HOUR_US), (" 90 Min ", 90 * 60_000_000), ("2w", 336 * HOUR_US)])
def test_durations_are_read(text: str, step_us: int) -> None:
    assert parse_duration_us(text) == step_us
    assert parse_duration_us(format_duration(step_us)) == step_us


@pytest.mark.parametrize("text", ["", "0h", "-1h", "1.5h", "h", "1y", "10000w", "99999999999w", "9" * 400 + "s"])
def test_what_is_no_duration_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        parse_duration_us(text)
    assert parse_duration_us("9999w") == MAX_DURATION_US
