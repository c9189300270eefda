"""Which of the offered forms an `Accept` header prefers."""

import pytest

from forecasting.api.problems import Problem
from forecasting.api.results import ARROW, CSV, JSON, MEDIA_TYPES, PARQUET, accepted


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("text/*", CSV),
        ("text/csv, application/json", CSV),
        ("application/json, text/csv", JSON),
        ("*/*, text/csv", JSON),
        ("*/*;q=0.5, text/csv", CSV),
        ("image/png, TEXT/CSV; charset=utf-8", CSV),
        (f"{ARROW};q=0.2, {PARQUET};q=0.7", PARQUET),
        # The closest range tells, wherever it stands.
        ("application/json;q=0, */*", CSV),
        ("*/*, application/json;q=0", CSV),
        ("application/json;q=0.1, */*;q=0.2", CSV),
        ("application/*;q=0, */*", CSV),
        ("application/*;q=0, */*, application/json;q=0.1, text/csv;q=0", JSON),
        ("text/*, application/*;q=0.9, text/csv;q=0.1", JSON),
    ],
)
def test_the_closest_range_tells_the_weight_of_a_form(header: str | None, media_type: str) -> None:
    assert accepted(header, MEDIA_TYPES) == media_type


@pytest.mark.parametrize("header", ["image/png", "*/*;q=0", "text/csv;q=0", "*/*;q=nan", "*/*;q=-1", "text/csv;q=x"])
def test_what_is_not_acceptable_is_refused(header: str) -> None:
    with pytest.raises(Problem) as refused:
        accepted(header, MEDIA_TYPES)
    assert refused.value.status == 406


def test_a_form_with_weight_0_is_not_sent_though_any_would_do() -> None:
    with pytest.raises(Problem):
        accepted("application/json;q=0, */*", (JSON,))
