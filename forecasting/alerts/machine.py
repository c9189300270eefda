"""What follows from a judgement: an alert begins, goes on, or is over. Pure functions, without a clock or a file.

An alert begins after `for_steps` steps in a row whose judgement is `FIRE`, and is over after as many whose judgement is
`CLEAR`. What lies between (`HOLD`) changes nothing and ends both runs, so that a value at the bound does not flap.

A step may be judged again, as a revision changes what it rests on. That judgement takes the place of the first: it goes
on from where the alert stood before the step.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Verdict(StrEnum):
    """What a judgement says."""

    FIRE = "fire"
    HOLD = "hold"
    CLEAR = "clear"


class State(StrEnum):
    """Where an alert stands."""

    OK = "ok"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an alert stands behind a step.

    Attributes:
        state: `OK` until it begins for the first time.
        run: steps in a row that say what would change it.
    """

    state: State = State.OK
    run: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """Where an alert stands, and where it stood before the step that was judged last.

    Attributes:
        step_us: start of that step; None before the first.
        before, now: before and behind it.
        changes: how often the state has changed; the number of the last change.
    """

    step_us: int | None = None
    before: Standing = Standing()
    now: Standing = Standing()
    changes: int = 0


def advance(standing: Standing, verdict: Verdict, for_steps: int) -> Standing:
    """Return where an alert stands behind a further step."""
    is_firing = standing.state is State.FIRING
    wanted = Verdict.CLEAR if is_firing else Verdict.FIRE
    if verdict is not wanted:
        return replace(standing, run=0)
    run = standing.run + 1
    if run < for_steps:
        return replace(standing, run=run)
    return Standing(State.RESOLVED if is_firing else State.FIRING)


def judged(course: Course, step_us: int, verdict: Verdict, for_steps: int) -> Course:
    """Return the course after a step was judged, for the first time or again.

    A step before the one judged last changes nothing: its time is over. Where judging again takes back that an alert
    had begun, it is resolved, as whoever was told of it has to be told so.
    """
    if course.step_us is not None and step_us < course.step_us:
        return course
    before = course.before if course.step_us == step_us else course.now
    now = advance(before, verdict, for_steps)
    if course.now.state is State.FIRING and now.state is State.OK:
        now = replace(now, state=State.RESOLVED)
    has_changed = (now.state is State.FIRING) != (course.now.state is State.FIRING)
    if not has_changed and course.now.state is not State.OK:
        now = replace(now, state=course.now.state)
    return Course(step_us, before, now, course.changes + has_changed)
