import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infra.steps import DAY_US, HOUR_US, SECOND_US, WEEK_US, step_start_us
from stream.windows import NEVER_US, Clock, closing_time_us, judge_late, step_starts_us

TIMES = st.lists(st.integers(0, 40 * HOUR_US), min_size=1, max_size=60)


@given(st.lists(st.integers(-(10**15), 10**16), min_size=1), st.sampled_from([SECOND_US, 7 * HOUR_US, DAY_US, WEEK_US]))
def test_array_steps_equal_single_steps(times: list[int], step_us: int) -> None:
    starts = step_starts_us(np.array(times), step_us)
    assert starts.tolist() == [step_start_us(ts_us, step_us) for ts_us in times]


@given(TIMES, st.integers(0, 5 * HOUR_US))
def test_late_means_behind_the_watermark_before_the_event(times: list[int], bound_us: int) -> None:
    late, clock = judge_late(np.array(times), HOUR_US, Clock(), bound_us)
    largest_us, expected = NEVER_US, []
    for ts_us in times:
        expected.append(step_start_us(ts_us, HOUR_US) + HOUR_US <= largest_us - bound_us)
        largest_us = max(largest_us, ts_us)
    assert late.tolist() == expected
    assert clock == Clock(watermark_us=max(times) - bound_us, max_ts_us=max(times))


@given(TIMES, st.data())
def test_lateness_does_not_depend_on_the_cut_into_batches(times: list[int], data: st.DataObject) -> None:
    ts_us = np.array(times)
    whole, clock_of_whole = judge_late(ts_us, HOUR_US, Clock(), HOUR_US)
    clock, parts = Clock(), []
    for part in np.split(ts_us, sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=6)))):
        late, clock = judge_late(part, HOUR_US, clock, HOUR_US)
        parts.append(late)
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert clock == clock_of_whole


def test_the_watermark_never_falls_when_the_bound_grows() -> None:
    _, clock = judge_late(np.array([100 * HOUR_US]), HOUR_US, Clock(), 0)
    late, clock = judge_late(np.array([100 * HOUR_US, 99 * HOUR_US - 1]), HOUR_US, clock, 50 * HOUR_US)
    assert clock.watermark_us == 100 * HOUR_US
    assert late.tolist() == [False, True]


def test_steps_close_up_to_the_slowest_partition() -> None:
    clocks = [Clock(5 * HOUR_US, 6 * HOUR_US), Clock(3 * HOUR_US, 4 * HOUR_US)]
    assert closing_time_us(clocks, HOUR_US, end=False) == 3 * HOUR_US


def test_the_end_closes_the_last_step() -> None:
    clocks = [Clock(5 * HOUR_US, 6 * HOUR_US), Clock(3 * HOUR_US, 4 * HOUR_US)]
    assert closing_time_us(clocks, HOUR_US, end=True) == 7 * HOUR_US


def test_the_end_of_a_source_without_events_closes_nothing() -> None:
    assert closing_time_us([Clock()], HOUR_US, end=True) == NEVER_US
