"""Schedules of reports: cron expressions in a time zone, and which of their slots are due, missed or skipped.

A slot is planned by adding a report's row that carries schedule and slot, of which there can be one: two schedulers
that plan the same slot plan it once. How far a schedule is planned moves in the same transaction.

Around a change of the clock cronsim follows Debian's cron: a fixed time that the clock skips fires right behind the
gap, and one that comes twice fires once; `*` in the hour or minute follows the time that passes. From hour to hour it
goes by steps of an hour: where the clock is put back by half of one, it enters the next in its middle.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from forecasting.bookkeeping.base import Connection
from forecasting.jobs import Status
from forecasting.keys import ALL_GRAPHS
from forecasting.reports.contents import ReportRequest
from forecasting.reports.records import SKIPPED, insert, log_line
from forecasting.service_file import ServiceFile, now_us
from infra.errors import UsageError
from infra.settings import ReportSettings, ScheduleSettings, TargetSettings

_COLUMNS = "spec, owner, origin, created_us, planned_us"
# Slots that one look plans at most; after a long pause the next looks plan the rest.
MAX_SLOTS = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Longer than any that says something: what is longer still takes those who read it past limits of Python's own.
_MAX_CRON_CHARS, _MAX_ZONE_CHARS = 500, 100
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
Missed = Literal["latest", "all", "skip"]


class WrongScheduleError(UsageError):
    """A schedule that cannot work; `field` is the part of it that is wrong."""

    def __init__(self, message: str, *, field: str, fix: str, place: str | None = None) -> None:
        super().__init__(message, place=place, fix=fix)
        self.field = field


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a report of a graph is made, and where it goes.

    Attributes:
        cron: five fields: minute, hour, day of the month, month, day of the week.
        timezone: of the IANA database.
        request: what is asked for.
        deliver: names of `[reports.targets]`.
        missed: of the slots that no scheduler was there for: make the latest, all of them, or skip them.
        paused: whether no slot is planned. What would have come meanwhile is no missed slot.
    """

    name: str
    graph: str
    cron: str
    timezone: str
    request: ReportRequest
    deliver: tuple[str, ...] = ()
    missed: Missed = "latest"
    paused: bool = False

    def spec(self) -> str:
        """Return the schedule as JSON, the same for equal schedules."""
        members = asdict(self)
        # Files of earlier versions know no pause: what is not paused reads as it did there.
        if not self.paused:
            del members["paused"]
        return json.dumps(members, sort_keys=True)

    def slots_us(self, after_us: int) -> Iterator[int]:
        """Yield the slots behind `after_us`, in UTC microseconds, for ever or until the expression has no more."""
        after = (_EPOCH + timedelta(microseconds=after_us)).astimezone(ZoneInfo(self.timezone))
        for moment in CronSim(self.cron, after):
            slot_us = (moment - _EPOCH) // timedelta(microseconds=1)
            # Within an hour that a change of clocks repeats, cronsim begins with the first of the two.
            if slot_us > after_us:
                yield slot_us

    def next_us(self, after_us: int) -> int | None:
        """Return the first slot behind `after_us`; None if there is none within decades."""
        return next(self.slots_us(after_us), None)


def check(schedule: Schedule, targets: Mapping[str, TargetSettings]) -> None:
    """Refuse a schedule that cannot work.

    Raises:
        WrongScheduleError: name, expression, zone or a target is wrong.
    """
    place = f"schedule {schedule.name!r}"
    if _NAME.fullmatch(schedule.name) is None:
        raise WrongScheduleError(
            f"a schedule cannot be called {schedule.name[:100]!r}",
            field="name",
            fix="use a-z, 0-9, then also _ and -, at most 64",
        )
    try:
        is_zone = len(schedule.timezone) <= _MAX_ZONE_CHARS and bool(ZoneInfo(schedule.timezone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        is_zone = False
    if not is_zone:
        raise WrongScheduleError(
            f"there is no time zone {schedule.timezone[:100]!r}",
            field="timezone",
            place=place,
            fix="name one such as Europe/Berlin or UTC",
        )
    fix = "give minute, hour, day of month, month, day of week: '0 7 * * 1' is Monday at seven"
    if not _is_cron(schedule.cron):
        raise WrongScheduleError(f"cron cannot be {schedule.cron[:100]!r}", field="cron", place=place, fix=fix)
    try:
        comes = schedule.next_us(now_us()) is not None
    except CronSimError:
        comes = False
    if not comes:
        raise WrongScheduleError(
            f"cron cannot be {schedule.cron[:100]!r}: no such time ever comes",
            field="cron",
            place=place,
            fix="name days that one of its months has: '0 0 L 2 *' is the last day of February",
        )
    for name in schedule.deliver:
        target = targets.get(name)
        # Whose target it is not shall look as if there were none.
        if target is None or not is_for(target, schedule.graph):
            raise WrongScheduleError(
                f"there is no target {name[:100]!r} for reports of {schedule.graph!r}",
                field="deliver",
                place=place,
                fix="name one of [reports.targets] in the settings whose graphs hold this one",
            )


def _is_cron(text: str) -> bool:
    """Tell whether each field of an expression is right by itself; that such a day comes is not said by it."""
    if len(text) > _MAX_CRON_CHARS or len(text.split()) != 5:
        return False
    minute, hour, day, month, weekday = text.split()
    try:
        # Together, cronsim calls a day wrong that the months lack, as it does one that is none.
        for apart in (f"{minute} {hour} {day} * {weekday}", f"{minute} {hour} * {month} {weekday}"):
            CronSim(apart, _EPOCH)
    except CronSimError:
        return False
    return True


def is_for(target: TargetSettings, graph: str) -> bool:
    """Tell whether reports of a graph may go to a target."""
    return any(
        graph == pattern or (pattern.endswith(ALL_GRAPHS) and graph.startswith(pattern[:-1]))
        for pattern in target.graphs
    )


def of_settings(name: str, given: ScheduleSettings, settings: ReportSettings, *, seed: int) -> Schedule:
    """Return a schedule of the settings."""
    request = ReportRequest(given.horizon or settings.horizon, seed, settings.paths)
    return Schedule(name, given.graph, given.cron, given.timezone, request, tuple(given.deliver), given.missed)


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule with who set it, when, and up to where it is planned; `origin` is `config` or `api`."""

    schedule: Schedule
    owner: str
    origin: str
    created_us: int
    planned_us: int


# Refuses, by raising, to have a schedule changed or removed.
Guard = Callable[[ScheduleRow], None]


class Schedules:
    """The schedules in a service's file.

    Args:
        file: where they are.
        settings: grace and targets.
        clock: the time in UTC microseconds, else that of the file.
    """

    def __init__(self, file: ServiceFile, settings: ReportSettings, clock: Callable[[], int] | None = None) -> None:
        self._file = file
        self._settings = settings
        self._clock = clock or file.now_us

    def put(self, schedule: Schedule, *, owner: str, guard: Guard | None = None) -> tuple[ScheduleRow, bool]:
        """Set a schedule; return it as it stands then, and whether there was none of its name.

        Slots before now are none of its slots.

        Args:
            schedule: what is set.
            owner: who sets it.
            guard: asked about the schedule that has the name, before it is changed; nobody else can change it between.

        Raises:
            WrongScheduleError: it cannot work.
            StoreError: the file cannot be written.
        """
        check(schedule, self._settings.targets)
        with self._file.transaction() as connection:
            return self._put(connection, schedule, owner, "api", guard)

    def take_settings(self, schedules: Sequence[Schedule]) -> None:
        """Make the schedules of the settings those that are set by them; what they no longer hold is removed.

        Raises:
            UsageError: one cannot work, or an API key has set one of its name.
            StoreError: the file cannot be written.
        """
        for schedule in schedules:
            check(schedule, self._settings.targets)
        named = {schedule.name for schedule in schedules}
        with self._file.transaction() as connection:
            for schedule in schedules:
                self._put(connection, schedule, "", "config", _check_of_settings)
            for row in self.all():
                if row.origin == "config" and row.schedule.name not in named:
                    _delete(connection, row.schedule.name)

    def remove(self, name: str, guard: Guard | None = None) -> bool:
        """Remove a schedule; its reports stay, and those that wait are still made. False where there is none.

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
            _delete(connection, name)
        return True

    def get(self, name: str) -> ScheduleRow | None:
        """Return a schedule, or None if there is none."""
        return next((row for row in self.all() if row.schedule.name == name), None)

    def all(self) -> list[ScheduleRow]:
        """Return all schedules, by name."""
        return [_row(row) for row in self._file.rows(f"SELECT {_COLUMNS} FROM report_schedules ORDER BY name")]

    def plan(self) -> int:
        """Add a report for every slot that has come; return how many slots were planned.

        Raises:
            StoreError: the file cannot be written.
        """
        now, planned = self._clock(), 0
        for row in self.all():
            if row.schedule.paused:
                continue
            first = row.schedule.next_us(row.planned_us)
            if first is not None and first <= now:
                with self._file.transaction() as connection:
                    planned += self._plan(connection, row, now)
        return planned

    def _put(
        self, connection: Connection, schedule: Schedule, owner: str, origin: str, guard: Guard | None
    ) -> tuple[ScheduleRow, bool]:
        spec, now = schedule.spec(), self._clock()
        row = _find(connection, schedule.name)
        if row is not None and guard is not None:
            guard(row)
        if row is not None and row.schedule.spec() == spec:
            # Nothing is new: what was missed meanwhile is still to be planned.
            connection.execute(
                "UPDATE report_schedules SET origin = ?, spec = ? WHERE name = ?", (origin, spec, schedule.name)
            )
            return replace(row, origin=origin), False
        connection.execute(
            "INSERT INTO report_schedules (name, owner, origin, spec, created_us, planned_us)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " owner = excluded.owner, origin = excluded.origin, spec = excluded.spec,"
            " planned_us = excluded.planned_us",
            (schedule.name, owner, origin, spec, now, now),
        )
        return ScheduleRow(schedule, owner, origin, now if row is None else row.created_us, now), row is None

    def _plan(self, connection: Connection, row: ScheduleRow, now: int) -> int:
        schedule = row.schedule
        slots: list[int] = []
        for slot_us in schedule.slots_us(row.planned_us):
            if slot_us > now or len(slots) == MAX_SLOTS:
                break
            slots.append(slot_us)
        moved = connection.execute(
            "UPDATE report_schedules SET planned_us = ? WHERE name = ? AND planned_us = ? AND spec = ?",
            (slots[-1], schedule.name, row.planned_us, schedule.spec()),
        )
        if moved.rowcount != 1:
            return 0  # another scheduler was quicker, or the schedule was changed
        after = schedule.next_us(slots[-1])
        has_more = after is not None and after <= now
        for slot_us in slots:
            is_late = now - slot_us > self._settings.grace_s * 1_000_000
            is_latest = slot_us == slots[-1] and not has_more
            is_made = schedule.missed == "all" or not is_late or (schedule.missed == "latest" and is_latest)
            report_id = secrets.token_hex(16)
            added = insert(
                connection,
                report_id,
                schedule.graph,
                row.owner,
                schedule.request,
                now,
                status=Status.QUEUED if is_made else SKIPPED,
                schedule=schedule.name,
                slot_us=slot_us,
                deliver=schedule.deliver,
            )
            if added:
                log_line(connection, report_id, now, "due" if is_made else "skipped: no scheduler ran at its time")
        return len(slots)


def _check_of_settings(row: ScheduleRow) -> None:
    if row.origin != "config":
        name = row.schedule.name
        raise UsageError(
            f"the schedule {name!r} was set over the API or the command line already",
            place=f"[reports.schedules.{name}]",
            fix=f"take another name, or: graphtide report schedule remove {name}",
        )


def _find(connection: Connection, name: str) -> ScheduleRow | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM report_schedules WHERE name = ?", (name,)).fetchone()
    return None if row is None else _row(row)


def _delete(connection: Connection, name: str) -> None:
    connection.execute("DELETE FROM report_schedules WHERE name = ?", (name,))


def _row(row: tuple[Any, ...]) -> ScheduleRow:
    spec = json.loads(row[0])
    request = ReportRequest(**spec.pop("request"))
    return ScheduleRow(Schedule(**{**spec, "deliver": tuple(spec["deliver"])}, request=request), *row[1:])
