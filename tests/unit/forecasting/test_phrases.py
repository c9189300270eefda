"""Numbers and durations as people read them."""

import pytest

from forecasting.reports.phrases import about, in_full
from infra.steps import DAY_US, HOUR_US, SECOND_US


@pytest.mark.parametrize(
    ("duration_us", "said"),
    [
        (25_115_719 * SECOND_US, "290 days 16 hours"),
        (DAY_US, "1 day"),
        (DAY_US + 59 * SECOND_US, "1 day"),
        (3 * HOUR_US + 60 * SECOND_US, "3 hours 1 minute"),
        (59 * SECOND_US, "59 seconds"),
        (0, "0 seconds"),
    ],
)
def test_durations_have_their_two_largest_units(duration_us: int, said: str) -> None:
    assert about(duration_us) == said


def test_numbers_have_the_digits_that_they_have() -> None:
    assert [in_full(value) for value in (12_345_678.0, 0.85, 5.0)] == ["12,345,678", "0.85", "5"]
