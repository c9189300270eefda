"""Texts of the command line that become values."""

import pytest

from forecasting.cli.arguments import parse_metrics, parse_quantiles, parse_time_us
from forecasting.cli.forecast import shown_steps
from forecasting.cli.ingest import parse_columns
from infra.errors import UsageError
from infra.schema import METRIC_NAMES, QUANTILE_LEVELS


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-02", 86_400_000_000),
        ("1970-01-01T01:00Z", 3_600_000_000),
        ("1970-01-01T01:00:00.25", 3_600_250_000),
        ("1970-01-01T01:00+01:00", 0),
        ("1969-12-31T23:59:59.5", -500_000),
        ("2016-03-06T12:00:00.999999Z", 1_457_265_600_999_999),
    ],
)
def test_time(text: str, time_us: int) -> None:
    assert parse_time_us("--start", text) == time_us


def test_no_time() -> None:
    with pytest.raises(UsageError, match="--end cannot be 'tomorrow'"):
        parse_time_us("--end", "tomorrow")


def test_metrics() -> None:
    assert parse_metrics(None) == METRIC_NAMES
    assert parse_metrics("new_nodes, events,new_nodes") == ("new_nodes", "events")
    for text in ("", ",", "events,evnts"):
        with pytest.raises(UsageError):
            parse_metrics(text)


def test_quantiles() -> None:
    assert parse_quantiles(None) == QUANTILE_LEVELS
    assert parse_quantiles("0.9,.5, 0.10") == (0.1, 0.5, 0.9)
    for text in ("", "0.33", "nan", "x"):
        with pytest.raises(UsageError):
            parse_quantiles(text)


def test_columns() -> None:
    assert parse_columns(None) == {}
    assert parse_columns("src=author, dst=to") == {"src": "author", "dst": "to"}
    for text in ("src", "src=", "=a", "src=a,src=b"):
        with pytest.raises(UsageError):
            parse_columns(text)


@pytest.mark.parametrize("horizon", [1, 2, 5, 24, 168, 36_500])
@pytest.mark.parametrize("most", [2, 3, 6])
def test_table_reaches_from_the_next_step_to_the_last(horizon: int, most: int) -> None:
    steps = shown_steps(horizon, most)
    assert steps[0] == 1
    assert steps[-1] == horizon
    assert steps == sorted(set(steps))
    assert len(steps) <= most
