"""How long the processes that compute forecasts and reports wait before they are started again."""

import itertools

from forecasting.job_processes import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, next_pause_s


def pauses(lives_s):
    return list(itertools.accumulate(lives_s, next_pause_s, initial=0.0))[1:]


def test_a_process_that_dies_at_its_start_is_tried_less_and_less_often():
    found = pauses([0.5] * 20)
    assert found[:4] == [0.1, 0.2, 0.4, 0.8]
    assert found == sorted(found)
    assert found[-1] == LONGEST_PAUSE_S


def test_one_that_worked_for_a_while_is_started_again_at_once():
    assert pauses([0.5] * 20 + [3600.0, 0.5])[-2:] == [SHORTEST_PAUSE_S, 2 * SHORTEST_PAUSE_S]
