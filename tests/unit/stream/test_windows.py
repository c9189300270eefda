import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infra.steps import DAY_US, HOUR_US, SECOND_US, WEEK_US, step_start_us
from stream.windows import NEVER_US, Clock, Hand, closing_time_us, final_time_us, judge_late, step_starts_us

NOT_SEEN = Hand(Clock(), True)
TIMES = st.lists(st.integers(0, 40 * HOUR_US), min_size=1, max_size=60)


def hands(*hours: tuple[int, int], idle: tuple[int, ...] = ()) -> list[Hand]:
    """Return hands by (watermark, largest event time) in hours; `idle` are the numbers of idle ones."""
    return [Hand(Clock(w * HOUR_US, m * HOUR_US), at in idle) for at, (w, m) in enumerate(hours)]


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
    clocks = hands((5, 6), (3, 4))
    assert closing_time_us(clocks, HOUR_US, end=False) == 3 * HOUR_US


def test_the_end_closes_the_last_step() -> None:
    clocks = hands((5, 6), (3, 4))
    assert closing_time_us(clocks, HOUR_US, end=True) == 7 * HOUR_US


def test_the_end_of_a_source_without_events_closes_nothing() -> None:
    assert closing_time_us([Hand(Clock(), False)], HOUR_US, end=True) == NEVER_US


def test_steps_do_not_wait_for_idle_partitions() -> None:
    assert closing_time_us(hands((5, 6), (3, 4), idle=(1,)), HOUR_US, end=False) == 5 * HOUR_US
    assert closing_time_us([*hands((5, 6)), NOT_SEEN], HOUR_US, end=False) == 5 * HOUR_US
    assert closing_time_us([*hands((5, 6)), Hand(Clock(), False)], HOUR_US, end=False) == NEVER_US


def test_where_all_are_idle_the_furthest_counts() -> None:
    assert closing_time_us(hands((5, 6), (3, 4), idle=(0, 1)), HOUR_US, end=False) == 5 * HOUR_US


def test_idle_partitions_hold_steps_back_from_being_final_for_a_while() -> None:
    def final(*hands_: Hand, lateness_h: int = 0, hold_h: int = 100) -> int:
        found = final_time_us(hands_, allowed_lateness_us=lateness_h * HOUR_US, idle_hold_us=hold_h * HOUR_US)
        return NEVER_US if found == NEVER_US else found // HOUR_US

    assert final(*hands((5, 6), (3, 4))) == 3
    assert final(*hands((5, 6), (3, 4)), lateness_h=2) == 1
    assert final(*hands((50, 50), (3, 4), idle=(1,))) == 3
    assert final(*hands((50, 50), (3, 4), idle=(1,)), hold_h=10) == 40
    assert final(*hands((50, 50)), NOT_SEEN) == 50
    assert final(*hands((50, 50)), Hand(Clock(), False)) == NEVER_US
    assert final(*hands((50, 50), (3, 4), idle=(0, 1)), hold_h=10) == 40
    assert final(NOT_SEEN) == NEVER_US


@given(TIMES, st.integers(0, 5 * HOUR_US), st.integers(0, 9 * HOUR_US))
def test_allowed_lateness_counts_from_the_end_of_the_step(times: list[int], bound_us: int, lateness_us: int) -> None:
    late, _ = judge_late(np.array(times), HOUR_US, Clock(), bound_us, lateness_us)
    largest_us, expected = NEVER_US, []
    for ts_us in times:
        expected.append(step_start_us(ts_us, HOUR_US) + HOUR_US + lateness_us <= largest_us - bound_us)
        largest_us = max(largest_us, ts_us)
    assert late.tolist() == expected
