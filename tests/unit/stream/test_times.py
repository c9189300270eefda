"""Times to microseconds."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.decoders.times import TimeReader, detect_unit
from stream.events import EventRules, InvalidEventError

RULES = EventRules()
FACTORS = {"s": Decimal(10**6), "ms": Decimal(1000), "us": Decimal(1), "ns": Decimal("0.001")}


@given(st.integers(0, RULES.max_ts_us), st.sampled_from(sorted(FACTORS)), st.booleans())
def test_every_microsecond_survives_in_every_unit(ts_us: int, unit: str, typed: bool) -> None:
    number = Decimal(ts_us) / FACTORS[unit]
    text = f"{number:f}"
    raw: object = (int(text) if number == int(number) else Decimal(text)) if typed else text
    reader = TimeReader(unit, RULES)
    assert reader.value(raw) == ts_us
    assert reader.column([raw, raw], typed=typed).tolist() == [ts_us, ts_us]


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2199, 12, 30)),
    st.integers(-23 * 60, 23 * 60),
    st.booleans(),
)
def test_iso_text_is_utc_unless_it_says_otherwise(moment: datetime, offset_min: int, naive: bool) -> None:
    aware = moment.replace(tzinfo=UTC if naive else timezone(timedelta(minutes=offset_min)))
    expected = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    text = moment.isoformat(sep=" ") if naive else aware.isoformat()
    assert TimeReader("ms", RULES).column([text], typed=False).tolist() == [expected]


def test_the_fractions_of_a_published_log_are_exact() -> None:
    reader = TimeReader("s", RULES)
    assert reader.value("1289241911.72836") == 1289241911728360
    assert reader.value(Decimal("1289241911.72836")) == 1289241911728360
    assert reader.value("1289241911.7283600001") == 1289241911728360
    assert reader.value("2.5e3") == 2_500_000_000
    assert TimeReader("ns", RULES).value(1289241911728360499) == 1289241911728360


@given(st.integers(0, 1_000_000).map(lambda hours: hours * 3600 * 10**9), st.integers(1, 999))
@example(1_735_689_600 * 10**9, 1)
def test_what_is_finer_than_a_microsecond_moves_no_event_into_the_next_step(border_ns: int, before_ns: int) -> None:
    ts_ns = max(0, border_ns - before_ns)
    seconds, rest_ns = divmod(ts_ns, 10**9)
    iso = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"
    expected = [ts_ns // 1000] * 2
    for unit, factor in FACTORS.items():
        number = Decimal(ts_ns) / (factor * 1000)
        for raw, typed in ((f"{number:f}", False), (number, True), (iso, False)):
            reader = TimeReader(unit, RULES)
            assert [reader.value(raw)] * 2 == expected
            assert reader.column([raw, raw], typed=typed).tolist() == expected
    assert TimeReader("ns", RULES).column(np.array([ts_ns] * 2), typed=True).tolist() == expected


@pytest.mark.parametrize("text", ["2024-12-31t23:59:59z", "2024-12-31T23:59:59z", "2024-12-31 23:59:59.000000z"])
def test_rfc_3339_may_be_written_in_lower_case(text: str) -> None:
    reader = TimeReader("s", RULES)
    assert reader.value(text) == 1_735_689_599_000_000
    assert reader.column([text, text], typed=False).tolist() == [1_735_689_599_000_000] * 2


@pytest.mark.parametrize(
    ("unit", "raw", "reason"),
    [
        ("s", "", "ts is empty"),
        ("s", "  ", "ts is empty"),
        ("s", None, "ts is missing"),
        ("s", "yesterday", "'yesterday' is neither a number nor ISO 8601"),
        ("s", "1_000", "neither a number nor ISO 8601"),
        ("s", "١٢٣", "neither a number nor ISO 8601"),
        ("s", "0x10", "neither a number nor ISO 8601"),
        ("s", "9" * 5000, "neither a number nor ISO 8601"),
        ("s", "NaN", "is not finite"),
        ("s", "-inf", "is not finite"),
        ("s", True, "neither a number nor text"),
        ("s", [1], "neither a number nor text"),
        ("s", "-1", "time -1 is negative"),
        ("s", -(10**40), "more than 30 digits is negative"),
        ("s", "1969-12-31T23:59:59Z", "is negative"),
        ("s", "9999-12-31", "lies after 2200"),
        ("s", "0001-01-01T00:00:00+23:00", "is negative"),
        ("s", "1289241911728", r"looks like milliseconds \(use --time-unit ms\)"),
        ("s", 1289241911728360, r"looks like microseconds \(use --time-unit us\)"),
        ("s", "1289241911728360000", r"looks like nanoseconds \(use --time-unit ns\)"),
        ("ms", "1289241911728360", r"looks like microseconds \(use --time-unit us\)"),
        ("s", 10**25, "time 10000000000000000000000000 in seconds lies after"),
        ("s", Decimal("1e999999999"), "more than 30 digits in seconds lies after"),
    ],
)
def test_what_is_no_valid_time_says_why(unit: str, raw: object, reason: str) -> None:
    reader = TimeReader(unit, RULES)
    with pytest.raises(InvalidEventError, match=reason):
        reader.value(raw)
    with pytest.raises(InvalidEventError):
        reader.column([raw], typed=not isinstance(raw, str))


def test_a_whole_column_with_one_bad_time_is_refused() -> None:
    for bad in ("-5", str(10**18), str(10**30)):
        with pytest.raises(InvalidEventError):
            TimeReader("s", RULES).column(["5", bad, "7"], typed=False)
        with pytest.raises(InvalidEventError):
            TimeReader("s", RULES).column([5, int(bad), 7], typed=True)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (["0", "36", "77"], "s"),
        (["1289241911.5"], "s"),
        ([1289241911728, 1289241911729], "ms"),
        (["1289241911728360"] * 3, "us"),
        ([1289241911728360000], "ns"),
        (["5", "1289241911728", "1289241911729"], "ms"),
        (["1289241911", "1289241912", "1289241911728360"], "s"),
        (["2010-11-08", "x"], "s"),
        (["x", None, True, "", []], None),
        ([], None),
        (["9" * 30], "s"),
    ],
)
def test_the_unit_is_told_by_the_median(times: list[object], unit: str | None) -> None:
    assert detect_unit(times) == unit


@given(st.lists(st.text("0123456789.", max_size=9), min_size=1, max_size=4), st.sampled_from(sorted(FACTORS)))
@example(["7.5", ""], "s")
@example(["7.5", "."], "s")
@example(["1.2.3", "7.5"], "ms")
def test_a_column_is_what_its_values_are(texts: list[str], unit: str) -> None:
    reader = TimeReader(unit, RULES)
    try:
        expected = [reader.value(text) for text in texts]
    except InvalidEventError:
        with pytest.raises(InvalidEventError):
            reader.column(texts, typed=False)
    else:
        assert reader.column(texts, typed=False).tolist() == expected


def test_a_guessed_unit_never_misreads_a_coarser_one() -> None:
    guessed = TimeReader("ms", RULES, detected=True)
    assert guessed.value("1289241911728") == 1289241911728000
    assert guessed.value("2010-11-08T18:45:11Z") == 1289241911000000
    with pytest.raises(InvalidEventError, match="--time-unit ms"):
        guessed.value("1289241911")
    with pytest.raises(InvalidEventError):
        guessed.column(["1289241911728", "1289241911"], typed=False)
    assert TimeReader("ms", RULES).value("1289241911") == 1289241911000


def test_a_narrow_range_does_not_change_what_a_number_means() -> None:
    until_2020 = EventRules(max_ts_us=1_577_836_800_000_000)
    assert detect_unit(["1609459200"]) == "s"
    with pytest.raises(InvalidEventError, match=r"lies after 2020-01-01T00:00:00Z$"):
        TimeReader("s", until_2020).value("1609459200")


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_the_least_number_is_no_time(unit: str) -> None:
    least = np.array([-(2**63)], dtype=np.int64)
    with pytest.raises(InvalidEventError):
        TimeReader(unit, RULES).column(least, typed=True)
    with pytest.raises(InvalidEventError):
        TimeReader(unit, RULES).column([-(2**63)], typed=True)
