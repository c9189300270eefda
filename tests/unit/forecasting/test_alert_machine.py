"""The state machine: what may follow from what, for any course of judgements."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forecasting.alerts.machine import Course, Standing, State, Verdict, advance, judged

VERDICTS = st.sampled_from(list(Verdict))
COURSES = st.lists(VERDICTS, max_size=40)
RUNS = st.integers(1, 4)
FIRE, HOLD, CLEAR = Verdict.FIRE, Verdict.HOLD, Verdict.CLEAR


def walked(verdicts: list[Verdict], for_steps: int) -> list[Course]:
    courses = [Course()]
    for step, verdict in enumerate(verdicts):
        courses.append(judged(courses[-1], step, verdict, for_steps))
    return courses


@given(COURSES, RUNS)
def test_state_changes_only_after_a_whole_run_and_only_to_its_opposite(verdicts, for_steps: int) -> None:
    courses = walked(verdicts, for_steps)
    for step, (before, after) in enumerate(pairwise(courses)):
        if after.now.state is before.now.state:
            assert after.changes == before.changes
            continue
        assert after.changes == before.changes + 1
        wanted = FIRE if after.now.state is State.FIRING else CLEAR
        assert verdicts[step + 1 - for_steps : step + 1] == [wanted] * for_steps
        assert after.now.state is (State.RESOLVED if before.now.state is State.FIRING else State.FIRING)


@given(COURSES, RUNS)
def test_state_is_what_the_last_whole_run_says(verdicts, for_steps: int) -> None:
    expected = State.OK
    for end in range(for_steps, len(verdicts) + 1):
        run = set(verdicts[end - for_steps : end])
        if run == {FIRE}:
            expected = State.FIRING
        elif run == {CLEAR} and expected is State.FIRING:
            expected = State.RESOLVED
    assert walked(verdicts, for_steps)[-1].now.state is expected


@given(COURSES, st.lists(st.tuples(VERDICTS, st.lists(VERDICTS, max_size=3)), max_size=20), RUNS)
def test_judging_steps_again_ends_where_judging_them_once_would_have(start, steps, for_steps: int) -> None:
    course, plain = walked(start, for_steps)[-1], list(start)
    changes = course.changes
    for number, (last, earlier) in enumerate(steps, start=len(start)):
        for verdict in [*earlier, last]:
            before = course
            course = judged(course, number, verdict, for_steps)
            fired = (before.now.state is State.FIRING, course.now.state is State.FIRING)
            changes += fired[0] != fired[1]
        plain.append(last)
    once = walked(plain, for_steps)[-1]
    assert (course.now.state is State.FIRING) == (once.now.state is State.FIRING)
    assert course.now.run == once.now.run
    assert course.changes == changes


@given(COURSES, RUNS, VERDICTS)
def test_the_same_judgement_twice_is_one(verdicts, for_steps: int, verdict: Verdict) -> None:
    once = judged(walked(verdicts, for_steps)[-1], len(verdicts), verdict, for_steps)
    assert judged(once, len(verdicts), verdict, for_steps) == once


def test_step_that_is_long_past_changes_nothing() -> None:
    course = judged(Course(), 10, FIRE, 1)
    assert judged(course, 9, CLEAR, 1) == course


def test_revision_that_takes_an_alert_back_resolves_it() -> None:
    fired = judged(Course(), 1, FIRE, 1)
    back = judged(fired, 1, CLEAR, 1)
    assert (back.now.state, back.changes) == (State.RESOLVED, 2)
    assert judged(back, 1, FIRE, 1).changes == 3


def test_value_at_the_bound_does_not_flap() -> None:
    standing, states = Standing(), []
    for verdict in [FIRE, HOLD, FIRE, HOLD, CLEAR, HOLD, CLEAR, CLEAR]:
        standing = advance(standing, verdict, 2)
        states.append(standing.state)
    assert set(states) == {State.OK}
