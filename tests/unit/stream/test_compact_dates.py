"""Dates of digits alone are dates where that is sure, seconds where logs have such, and else asked about."""

from decimal import Decimal
from typing import Any

import pytest

from infra.errors import InputError
from stream.decoders.builder import DecodeOptions, EventBuilder
from stream.decoders.log import LogReader
from stream.decoders.records.base import Record
from stream.decoders.times import AnyUnitReader, TimeReader
from stream.events import EventRules, Interner
from tests.fuzz.invariants import decoder

DAY_US = 1_706_659_200_000_000  # 2024-01-31
MOMENT_US = DAY_US + ((10 * 60 + 15) * 60) * 1_000_000


def times_of(times: list[str], **options: Any) -> list[int]:
    data = "src,dst,ts\n" + "".join(f"a,b,{ts}\n" for ts in times)
    return _read(data, **options)


def _read(data: str, **options: Any) -> list[int]:
    reader = LogReader("log", EventBuilder(Interner(), DecodeOptions(**options)))
    batches = reader.feed(data.encode()) + reader.finish()
    assert reader.rejects.count == 0
    return [event.ts_us for batch in batches for event in batch]


def test_eight_digits_are_a_date_among_dates() -> None:
    assert times_of(["2024-01-31", "20240131"]) == [DAY_US, DAY_US]
    assert times_of(["20240131", "20240131101500", "20240131"]) == [DAY_US, MOMENT_US, DAY_US]
    # Not a date, so seconds as in any log.
    assert times_of(["2024-01-31", "20240132"]) == [DAY_US, 20_240_132_000_000]


@pytest.mark.parametrize("line", ["a b 20240131\n", '{"src":"a","dst":"b","ts":20240131}\n'])
def test_a_log_of_nothing_but_eight_digits_that_are_dates_is_asked_about(line: str) -> None:
    with pytest.raises(InputError, match="look like compact dates such as 20240131") as failure:
        _read(line * 3)
    assert failure.value.place == "log:1"
    assert failure.value.fix == "give --time-unit s if these are seconds, or write 2024-01-31"
    assert _read(line * 3, time_unit="s") == [20_240_131_000_000] * 3


def test_logs_that_count_from_their_own_start_have_such_seconds() -> None:
    seconds = [str(number) for number in range(20_240_120, 20_240_140)]
    assert times_of(seconds) == [int(number) * 1_000_000 for number in seconds]


@pytest.mark.parametrize("wrap", ["{}", '"{}"'])
@pytest.mark.parametrize("n", [1, 3])
def test_fourteen_digits_are_a_moment_in_files_and_records(wrap: str, n: int) -> None:
    line = '{"src":"a","dst":"b","ts":TIME}\n'.replace("TIME", wrap.format("20240131101500"))
    assert _read(line * n) == [MOMENT_US] * n
    # In microseconds, whatever else the log has.
    micros = line.replace("20240131101500", str(MOMENT_US))
    assert _read(micros * 3 + line) == [MOMENT_US] * 4
    for records in ([Record(line.encode())] * n, [Record((line * n).encode())]):
        assert [event.ts_us for event in decoder("auto").decode(records).events] == [MOMENT_US] * n


def test_a_unit_that_is_given_means_what_it_says() -> None:
    assert times_of(["20240131101500"], time_unit="us") == [20_240_131_101_500]
    assert TimeReader("us", EventRules()).value(20240131101500) == 20_240_131_101_500


def test_eight_digits_of_a_record_are_a_date_as_text_only() -> None:
    reader = AnyUnitReader(EventRules())
    assert reader.column(["20240131", "20240131"], typed=True).tolist() == [DAY_US] * 2
    assert reader.column([20240131, 20240131], typed=True).tolist() == [20_240_131_000_000] * 2
    assert reader.column(["20240131", 20240131, 20240131101500], typed=True).tolist() == [
        DAY_US,
        20_240_131_000_000,
        MOMENT_US,
    ]
    assert reader.value(Decimal("20240131101500.25")) == MOMENT_US + 250_000


@pytest.mark.parametrize("number", [20240231101500, 20240131251500, 18991231000000, 22010101000000])
def test_digits_that_are_no_moment_are_numbers(number: int) -> None:
    assert AnyUnitReader(EventRules()).column([number, number], typed=True).tolist() == [number] * 2
