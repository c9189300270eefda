"""The rules in a service's file: those of the settings, and those that API keys have set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forecasting.alerts.records import end_alerts
from forecasting.alerts.rules import Rule, checked
from forecasting.bookkeeping.base import Connection
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError, UsageError
from infra.settings import AlertSettings, TargetSettings

_COLUMNS = "name, spec, owner, origin, created_us, evaluations, failures, problem"


class TooManyRulesError(GraphtideError):
    """A key has as many rules as it may have."""


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule, who set it, when, and how its judging went; `origin` is `config` or `api`."""

    rule: Rule
    owner: str
    origin: str
    created_us: int
    evaluations: int
    failures: int
    problem: str | None


# Refuses, by raising, to have a rule changed or removed.
Guard = Callable[[RuleRow], None]


class RuleBook:
    """The rules in a service's file.

    Args:
        file: where they are.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(self, file: ServiceFile, clock: Callable[[], int] | None = None) -> None:
        self._file = file
        self._clock = clock or file.now_us

    def put(
        self, rule: Rule, *, owner: str, most: int | None = None, guard: Guard | None = None
    ) -> tuple[RuleRow, bool]:
        """Set a rule that was checked; return it as it stands then, and whether there was none of its name.

        Alerts of a rule that says something else now are over: they were judged by what no longer holds.

        Args:
            rule: what is set.
            owner: who sets it.
            most: rules that the owner may have.
            guard: asked about the rule that has the name, before it is changed; nobody else can change it between.

        Raises:
            TooManyRulesError: the owner has `most` rules already.
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            row = _find(connection, rule.name)
            if row is not None and guard is not None:
                guard(row)
            if row is None and most is not None:
                (count,) = connection.execute("SELECT count(*) FROM alert_rules WHERE owner = ?", (owner,)).fetchone()
                if count >= most:
                    raise TooManyRulesError(f"this key has {count} alert rules, and may have {most}")
            return self._put(connection, row, rule, owner, "api"), row is None

    def remove(self, name: str, guard: Guard | None = None) -> bool:
        """Remove a rule; its alerts that fire are over, and those who were told are told so. False where there is none.

        Args:
            name: which one.
            guard: asked about it before; nobody else can change it between.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            row = _find(connection, name)
            if row is None:
                return False
            if guard is not None:
                guard(row)
            self._delete(connection, row)
        return True

    def get(self, name: str) -> RuleRow | None:
        """Return a rule, or None if there is none."""
        rows = self._file.rows(f"SELECT {_COLUMNS} FROM alert_rules WHERE name = ?", (name,))
        return _row(rows[0]) if rows else None

    def all(self) -> list[RuleRow]:
        """Return all rules, by name."""
        return [_row(row) for row in self._file.rows(f"SELECT {_COLUMNS} FROM alert_rules ORDER BY name")]

    def note(self, evaluated: Mapping[str, int], failed: Mapping[str, str]) -> None:
        """Count judgements by rule, and keep why rules could not be judged.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            note(connection, evaluated, failed)

    def take_settings(self, settings: AlertSettings, targets: Mapping[str, TargetSettings]) -> None:
        """Make the rules of the settings those that are set by them; what they no longer hold is removed.

        Raises:
            UsageError: one cannot work, or an API key has set one of its name.
            StoreError: the file cannot be written.
        """
        rules = [checked(name, spec, targets) for name, spec in settings.rules.items()]
        with self._file.transaction() as connection:
            for rule in rules:
                row = _find(connection, rule.name)
                if row is not None and row.origin != "config":
                    raise UsageError(
                        f"the alert rule {rule.name!r} was set over the API already",
                        place=f"[alerts.rules.{rule.name}]",
                        fix=f"take another name, or remove it: DELETE /v1/alert-rules/{rule.name}",
                    )
                self._put(connection, row, rule, "", "config")
            for row in self.all():
                if row.origin == "config" and row.rule.name not in settings.rules:
                    self._delete(connection, row)

    def _put(self, connection: Connection, known: RuleRow | None, rule: Rule, owner: str, origin: str) -> RuleRow:
        spec, now = rule.to_json(), self._clock()
        if known is not None and known.rule.to_json() == spec:
            connection.execute("UPDATE alert_rules SET origin = ?, spec = ? WHERE name = ?", (origin, spec, rule.name))
            return replace(known, origin=origin)
        if known is not None:
            _end(connection, known.rule, now, "the rule was changed")
        connection.execute(
            "INSERT INTO alert_rules (name, owner, origin, spec, created_us, evaluations, failures)"
            " VALUES (?, ?, ?, ?, ?, 0, 0) ON CONFLICT (name) DO UPDATE SET owner = excluded.owner,"
            " origin = excluded.origin, spec = excluded.spec, created_us = excluded.created_us, problem = NULL",
            (rule.name, owner, origin, spec, now),
        )
        if known is None:
            return RuleRow(rule, owner, origin, now, 0, 0, None)
        return replace(known, rule=rule, owner=owner, origin=origin, created_us=now, problem=None)

    def _delete(self, connection: Connection, row: RuleRow) -> None:
        connection.execute("DELETE FROM alert_rules WHERE name = ?", (row.rule.name,))
        _end(connection, row.rule, self._clock(), "the rule was removed")


def note(connection: Connection, evaluated: Mapping[str, int], failed: Mapping[str, str]) -> None:
    """Count judgements and failures of rules within a transaction."""
    for name, count in evaluated.items():
        connection.execute(
            "UPDATE alert_rules SET evaluations = evaluations + ?, problem = NULL WHERE name = ?", (count, name)
        )
    for name, problem in failed.items():
        connection.execute(
            "UPDATE alert_rules SET failures = failures + 1, problem = ? WHERE name = ?", (problem, name)
        )


def is_current(connection: Connection, row: RuleRow) -> bool:
    """Tell whether a rule still says what was judged; one that was removed or changed since does not."""
    known = connection.execute("SELECT created_us FROM alert_rules WHERE name = ?", (row.rule.name,)).fetchone()
    return known is not None and known[0] == row.created_us


def _find(connection: Connection, name: str) -> RuleRow | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM alert_rules WHERE name = ?", (name,)).fetchone()
    return None if row is None else _row(row)


def _end(connection: Connection, rule: Rule, now: int, reason: str) -> None:
    end_alerts(connection, rule.name, rule.spec.deliver, now, reason)


def _row(row: Sequence[Any]) -> RuleRow:
    name, spec, *rest = row
    return RuleRow(Rule.from_json(name, spec), *rest)
