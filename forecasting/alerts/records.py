"""Alerts in the service's file: where each stands, what has changed, and what has to be delivered of that.

A judgement, the change that follows from it and its deliveries are one transaction, which names the fencing token of
the graph's watch: whoever is killed leaves all of it or nothing, and of two replicas one writes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forecasting.alerts.machine import Course, Standing, State, Verdict, judged
from forecasting.alerts.rules import Rule
from forecasting.bookkeeping.base import TEXTS_OF_JSON, Connection
from forecasting.reports.deliveries import Queue
from forecasting.service_file import ServiceFile
from infra.steps import format_time

_COLUMNS = (
    "id, rule, graph, metric, state, changes, told, since_us, judged_us, facts, acknowledged_us, acknowledged_by,"
    " silenced_until_us"
)
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found of a rule in a graph at a step.

    Attributes:
        metric: '' for the graph itself.
        step_us: start of the step that it stands at.
        verdict: what follows from it.
        facts: what it rests on, as JSON values, for readers.
    """

    metric: str
    step_us: int
    verdict: Verdict
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AlertRow:
    """A row of the table; times are UTC microseconds. `changes` and `told` number the last change and the last told."""

    id: str
    rule: str
    graph: str
    metric: str
    state: str
    changes: int
    told: int
    since_us: int
    judged_us: int
    facts: dict[str, Any]
    acknowledged_us: int | None
    acknowledged_by: str | None
    silenced_until_us: int | None


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of an alert; `number` counts those of one alert from 1."""

    id: str
    alert_id: str
    number: int
    state: str
    time_us: int
    facts: dict[str, Any]


def log_line(connection: Connection, transition_id: str, time_us: int, line: str) -> None:
    """Note what happened to a transition, within a transaction."""
    connection.execute(
        "INSERT INTO alert_log (transition_id, time_us, line) VALUES (?, ?, ?)", (transition_id, time_us, line)
    )


# Those of one alert and target in order: that it is over never comes before that it began. None while it is silenced.
DELIVERIES = Queue(
    "alert_deliveries",
    "transition_id",
    log_line,
    ready="NOT EXISTS (SELECT 1 FROM alert_deliveries AS earlier WHERE earlier.queue = alert_deliveries.queue"
    " AND earlier.number < alert_deliveries.number AND earlier.status = 'waiting')"
    " AND NOT EXISTS (SELECT 1 FROM alert_transitions AS told JOIN alerts ON alerts.id = told.alert_id"
    " WHERE told.id = alert_deliveries.transition_id AND alerts.silenced_until_us > ?)",
)


def alert_id(rule: str, created_us: int, graph: str, metric: str) -> str:
    """Return the identity of an alert; a rule that was changed begins new ones."""
    return _digest(f"{rule} {created_us} {graph} {metric}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Alerts:
    """The alerts in a service's file.

    Args:
        file: where they are.
        keep_s: seconds that one which is over is kept.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(self, file: ServiceFile, *, keep_s: int, clock: Callable[[], int] | None = None) -> None:
        self._file = file
        self._keep_us = keep_s * _US
        self._clock = clock or file.now_us

    def get(self, wanted: str) -> AlertRow | None:
        """Return an alert, or None if there is none."""
        rows = self._file.rows(f"SELECT {_COLUMNS} FROM alerts WHERE id = ?", (wanted,))
        return _alert(rows[0]) if rows else None

    def graphs(self) -> list[str]:
        """Return the graphs that have alerts."""
        return [name for (name,) in self._file.rows("SELECT DISTINCT graph FROM alerts ORDER BY graph")]

    def newest(self, graphs: Sequence[str], states: Sequence[str], *, limit: int) -> list[AlertRow]:
        """Return alerts of these graphs and states, those that fire first, then by the time of their last change."""
        rows = self._file.rows(
            f"SELECT {_COLUMNS} FROM alerts WHERE graph IN ({TEXTS_OF_JSON}) AND state IN ({TEXTS_OF_JSON})"
            " ORDER BY state != 'firing', since_us DESC, rule, graph, metric LIMIT ?",
            (json.dumps(list(graphs)), json.dumps(list(states)), limit),
        )
        return [_alert(row) for row in rows]

    def firing(self) -> dict[str, int]:
        """Return how many alerts of each rule fire."""
        return dict(self._file.rows("SELECT rule, count(*) FROM alerts WHERE state = 'firing' GROUP BY rule"))

    def transitions(self, wanted: str, *, limit: int = 50) -> list[Transition]:
        """Return the latest changes of an alert, the newest first."""
        sql = (
            "SELECT id, alert_id, number, state, time_us, facts FROM alert_transitions WHERE alert_id = ?"
            " ORDER BY number DESC LIMIT ?"
        )
        return [_transition(row) for row in self._file.rows(sql, (wanted, limit))]

    def transition(self, wanted: str) -> Transition | None:
        """Return a change, or None if there is none."""
        sql = "SELECT id, alert_id, number, state, time_us, facts FROM alert_transitions WHERE id = ?"
        rows = self._file.rows(sql, (wanted,))
        return _transition(rows[0]) if rows else None

    def log(self, transition_id: str) -> list[tuple[int, str]]:
        """Return what happened to a change: time in UTC microseconds and a line."""
        sql = "SELECT time_us, line FROM alert_log WHERE transition_id = ? ORDER BY time_us, rowid"
        return [(time_us, line) for time_us, line in self._file.rows(sql, (transition_id,))]

    def acknowledge(self, wanted: str, by: str) -> bool:
        """Note that somebody has seen an alert that fires; False where it does not fire."""
        with self._file.transaction() as connection:
            changed = connection.execute(
                "UPDATE alerts SET acknowledged_us = coalesce(acknowledged_us, ?),"
                " acknowledged_by = coalesce(acknowledged_by, ?) WHERE id = ? AND state = 'firing'",
                (self._clock(), by, wanted),
            )
        return changed.rowcount == 1

    def silence(self, wanted: str, until_us: int | None) -> bool:
        """Deliver nothing of an alert until then; None ends that now. False where there is no such alert."""
        until_us = self._clock() if until_us is None else until_us
        with self._file.transaction() as connection:
            changed = connection.execute("UPDATE alerts SET silenced_until_us = ? WHERE id = ?", (until_us, wanted))
        return changed.rowcount == 1

    def end_silences(self) -> None:
        """Deliver what silences that are over have held back, where it is still news."""
        now = self._clock()
        over = "silenced_until_us <= ?"
        if not self._file.rows(f"SELECT 1 FROM alerts WHERE {over} LIMIT 1", (now,)):
            return
        with self._file.transaction() as connection:
            sql = (
                f"UPDATE alerts SET silenced_until_us = NULL WHERE {over} RETURNING id, changes, told,"
                " (SELECT spec FROM alert_rules WHERE name = rule)"
            )
            for wanted, changes, told, spec in connection.execute(sql, (now,)).fetchall():
                if spec is not None and _is_news(changes, told):
                    _tell(connection, json.loads(spec)["spec"]["deliver"], wanted, changes, now)

    def sweep(self) -> None:
        """Remove what is over for longer than it is kept, but nothing that is still delivered."""
        before_us = self._clock() - self._keep_us
        old = (
            "SELECT alert_transitions.id FROM alert_transitions WHERE time_us < ? AND NOT EXISTS (SELECT 1 FROM"
            " alert_deliveries WHERE transition_id = alert_transitions.id AND status = 'waiting')"
            " AND NOT EXISTS (SELECT 1 FROM alerts WHERE id = alert_id AND state = 'firing')"
        )
        over = (
            "SELECT id FROM alerts WHERE state != 'firing' AND since_us < ?"
            " AND NOT EXISTS (SELECT 1 FROM alert_rules WHERE name = rule AND created_us = rule_created_us)"
            " AND NOT EXISTS (SELECT 1 FROM alert_transitions JOIN alert_deliveries ON alert_transitions.id ="
            " transition_id WHERE alert_id = alerts.id AND status = 'waiting')"
        )
        has_old = self._file.rows(f"{old} LIMIT 1", (before_us,)) or self._file.rows(f"{over} LIMIT 1", (before_us,))
        if has_old:
            with self._file.transaction() as connection:
                connection.execute(f"DELETE FROM alerts WHERE id IN ({over})", (before_us,))
                connection.execute(f"DELETE FROM alert_deliveries WHERE transition_id IN ({old})", (before_us,))
                connection.execute(f"DELETE FROM alert_log WHERE transition_id IN ({old})", (before_us,))
                connection.execute(f"DELETE FROM alert_transitions WHERE id IN ({old})", (before_us,))


def record(
    connection: Connection,
    rule: Rule,
    created_us: int,
    graph: str,
    judgements: Sequence[Judgement],
    now: int,
) -> None:
    """Take the judgements of a rule in a graph, in the order of their steps, within a transaction.

    Every change is kept; of those of one alert the last is delivered, so that a pause is caught up with in one message.
    """
    for metric in dict.fromkeys(one.metric for one in judgements):
        _record_one(connection, rule, created_us, graph, [one for one in judgements if one.metric == metric], now)


def _record_one(
    connection: Connection, rule: Rule, created_us: int, graph: str, judgements: Sequence[Judgement], now: int
) -> None:
    metric = judgements[0].metric
    wanted = alert_id(rule.name, created_us, graph, metric)
    row = connection.execute("SELECT course, told, silenced_until_us FROM alerts WHERE id = ?", (wanted,)).fetchone()
    course = Course() if row is None else _course(row[0])
    told, silenced_until_us = (0, None) if row is None else row[1:]
    if row is None:
        connection.execute(
            "INSERT INTO alerts (id, rule, rule_created_us, graph, metric, course, state, changes, told, since_us,"
            " judged_us, facts) VALUES (?, ?, ?, ?, ?, '', 'ok', 0, 0, ?, ?, '{}')",
            (wanted, rule.name, created_us, graph, metric, now, judgements[0].step_us),
        )
    first = course.changes
    for one in judgements:
        before = course
        course = judged(course, one.step_us, one.verdict, rule.spec.for_steps)
        if course.changes > before.changes:
            line = f"{course.now.state.value} from the step of {format_time(one.step_us)} on"
            _change(connection, wanted, course, one.facts, line, now)
    last = judgements[-1]
    if course.step_us == last.step_us:
        connection.execute(
            "UPDATE alerts SET course = ?, judged_us = ?, facts = ? WHERE id = ?",
            (_course_json(course), last.step_us, _json(last.facts), wanted),
        )
    is_silent = silenced_until_us is not None and now < silenced_until_us
    if (course.changes > first or _is_news(course.changes, told)) and not is_silent:
        _tell(connection, rule.spec.deliver, wanted, course.changes, now)


def begin_anew(connection: Connection, graph: str) -> None:
    """Let the alerts of a graph that was made anew go on from where they stand, within a transaction.

    Its steps come before those that were judged of the earlier graph, and would change nothing until they passed them.
    """
    sql = "SELECT id, course FROM alerts WHERE graph = ? AND course != ''"
    for wanted, text in connection.execute(sql, (graph,)).fetchall():
        course = _course_json(replace(_course(text), step_us=None))
        connection.execute("UPDATE alerts SET course = ? WHERE id = ?", (course, wanted))


def _is_news(changes: int, told: int) -> bool:
    """Tell whether receivers do not know the state: it alternates, so an even number of changes leads back to it."""
    return (changes - told) % 2 == 1


def _change(connection: Connection, wanted: str, course: Course, facts: dict[str, Any], line: str, now: int) -> None:
    state = course.now.state.value
    transition = _digest(f"{wanted} {course.changes}")
    connection.execute(
        "INSERT INTO alert_transitions (id, alert_id, number, state, time_us, facts) VALUES (?, ?, ?, ?, ?, ?)",
        (transition, wanted, course.changes, state, now, _json(facts)),
    )
    log_line(connection, transition, now, line)
    connection.execute(
        "UPDATE alerts SET state = ?, changes = ?, since_us = ?, course = ?, facts = ?, acknowledged_us = NULL,"
        " acknowledged_by = NULL WHERE id = ?",
        (state, course.changes, now, _course_json(course), _json(facts), wanted),
    )


def _tell(connection: Connection, targets: Sequence[str], wanted: str, number: int, now: int) -> None:
    transition = _digest(f"{wanted} {number}")
    for target in dict.fromkeys(targets):
        connection.execute(
            "INSERT INTO alert_deliveries (id, transition_id, target, status, attempts, fence, next_us,"
            " created_us, queue, number) VALUES (?, ?, ?, 'waiting', 0, 0, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (_digest(f"{transition} {target}"), transition, target, now, now, f"{wanted} {target}", number),
        )
    connection.execute("UPDATE alerts SET told = ? WHERE id = ?", (number, wanted))


def end_alerts(connection: Connection, rule: str, targets: Sequence[str], now: int, reason: str) -> None:
    """End the alerts of a rule that fire, within a transaction; those who know of them are told, silence or not."""
    sql = "SELECT id, course, told, facts FROM alerts WHERE rule = ? AND state = 'firing'"
    for wanted, text, told, facts in connection.execute(sql, (rule,)).fetchall():
        course = _course(text)
        over = Course(course.step_us, course.now, Standing(State.RESOLVED), course.changes + 1)
        _change(connection, wanted, over, json.loads(facts) | {"ended": reason}, reason, now)
        if not _is_news(course.changes, told):
            _tell(connection, targets, wanted, over.changes, now)


def _course(text: str) -> Course:
    if not text:
        return Course()
    step_us, before, now, changes = json.loads(text)
    return Course(step_us, Standing(State(before[0]), before[1]), Standing(State(now[0]), now[1]), changes)


def _course_json(course: Course) -> str:
    before, now = course.before, course.now
    return json.dumps([course.step_us, [before.state, before.run], [now.state, now.run], course.changes])


def _json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)


def _alert(row: Sequence[Any]) -> AlertRow:
    values: list[Any] = list(row)
    values[9] = json.loads(values[9])
    return AlertRow(*values)


def _transition(row: Sequence[Any]) -> Transition:
    values: list[Any] = list(row)
    values[5] = json.loads(values[5])
    return Transition(*values)
