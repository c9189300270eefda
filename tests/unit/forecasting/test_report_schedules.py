"""A slot of a schedule gives one report, whatever the clock does."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecasting.jobs import Status
from forecasting.reports.records import SKIPPED
from forecasting.reports.schedules import MAX_SLOTS, WrongScheduleError
from infra.errors import UsageError
from tests.unit.forecasting.report_cases import DAILY, EPOCH, Clock, Scheduler, us

PAUSED = replace(DAILY, paused=True)


def slots(scheduler: Scheduler, status: str | None = None) -> list[str]:
    rows = scheduler.reports.newest(schedule="daily", limit=1000)
    shown = [row for row in rows if status is None or row.status == status]
    return sorted((EPOCH + timedelta(microseconds=row.slot_us or 0)).strftime("%m-%dT%H:%M") for row in shown)


def test_each_day_has_one_report_where_the_clock_is_put_forward(scheduler: Scheduler, clock: Clock) -> None:
    """29 March has no 02:30 in Berlin: it fires behind the gap, at 03:00, which is 01:00 in UTC."""
    scheduler.schedules.put(DAILY, owner="")
    for day in range(27, 32):
        for hour in range(24):
            clock.to(f"2026-03-{day}T{hour:02}:31")
            scheduler.schedules.plan()
    expected = ["03-27T01:30", "03-28T01:30", "03-29T01:00", "03-30T00:30", "03-31T00:30"]
    # The look at 01:31 comes 31 minutes late to the slot of 01:00: the latest of those missed.
    assert slots(scheduler, Status.QUEUED) == expected


def test_each_day_has_one_report_where_the_clock_is_put_back(scheduler: Scheduler, clock: Clock) -> None:
    clock.to("2026-10-24T00:00")
    scheduler.schedules.put(DAILY, owner="")
    for day in (24, 25, 26):
        for minute in range(0, 6 * 60, 10):
            clock.to(f"2026-10-{day}T{minute // 60:02}:{minute % 60:02}")
            scheduler.schedules.plan()
    assert slots(scheduler) == ["10-24T00:30", "10-25T00:30", "10-26T01:30"]


@pytest.mark.parametrize("after", ["2026-10-25T00:00", "2026-10-25T00:59", "2026-10-25T01:05", "2026-10-25T01:59"])
def test_no_slot_lies_before_what_it_follows_where_an_hour_is_repeated(after: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = DAILY.next_us(round(moment.timestamp() * 1e6))
    assert found is not None
    assert datetime.fromtimestamp(found / 1e6, UTC) > moment


@pytest.mark.parametrize(
    ("missed", "made", "skipped"),
    [
        ("latest", ["03-29T01:00"], ["03-27T01:30", "03-28T01:30"]),
        ("all", ["03-27T01:30", "03-28T01:30", "03-29T01:00"], []),
        ("skip", [], ["03-27T01:30", "03-28T01:30", "03-29T01:00"]),
    ],
)
def test_missed_slots_follow_the_policy(scheduler: Scheduler, clock: Clock, missed, made, skipped) -> None:
    scheduler.schedules.put(replace(DAILY, missed=missed), owner="")
    clock.to("2026-03-29T12:00")
    assert scheduler.schedules.plan() == 3
    assert slots(scheduler, Status.QUEUED) == made
    assert slots(scheduler, SKIPPED) == skipped
    assert scheduler.schedules.plan() == 0
    for row in scheduler.reports.newest(schedule="daily", limit=9):
        assert next(line for _, line in scheduler.reports.log(row.id)).startswith(
            "due" if row.status != SKIPPED else "skipped"
        )


def test_a_slot_within_the_grace_is_none_that_was_missed(scheduler: Scheduler, clock: Clock) -> None:
    scheduler.schedules.put(replace(DAILY, missed="skip"), owner="")
    clock.to("2026-03-27T01:34")
    scheduler.schedules.plan()
    assert slots(scheduler, Status.QUEUED) == ["03-27T01:30"]


def test_a_long_pause_is_planned_in_parts_and_only_the_latest_is_made(scheduler: Scheduler, clock: Clock) -> None:
    scheduler.schedules.put(replace(DAILY, cron="* * * * *", timezone="UTC"), owner="")
    clock.to("2026-03-27T20:00")
    looks = [scheduler.schedules.plan() for _ in range(4)]
    assert looks == [MAX_SLOTS, MAX_SLOTS, 1200 - 2 * MAX_SLOTS, 0]
    queued = [row for row in scheduler.reports.newest(schedule="daily", limit=2000) if row.status == Status.QUEUED]
    # Those within the grace of five minutes are not missed at all.
    assert next(row.slot_us for row in queued) == us("2026-03-27T20:00")
    assert len(queued) == 6


def test_two_schedulers_plan_a_slot_once(service_db: Path | str, clock: Clock) -> None:
    sides = [Scheduler(service_db, clock) for _ in range(2)]
    sides[0].schedules.put(replace(DAILY, cron="*/5 * * * *", missed="all"), owner="")
    clock.to("2026-03-27T10:00")
    counts = [0, 0]

    def plan(index: int) -> None:
        for _ in range(20):
            counts[index] += sides[index].schedules.plan()

    threads = [threading.Thread(target=plan, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = sides[0].reports.newest(schedule="daily", limit=1000)
    assert sum(counts) == len(rows) == len({row.slot_us for row in rows}) == 120
    for one in sides:
        one.file.close()


def test_a_schedule_that_is_set_again_makes_no_slot_twice(scheduler: Scheduler, clock: Clock) -> None:
    scheduler.schedules.put(DAILY, owner="")
    clock.to("2026-03-27T02:00")
    scheduler.schedules.plan()
    assert not scheduler.schedules.put(DAILY, owner="")[1]
    clock.to("2026-03-27T01:00")  # the clock of another machine is behind
    scheduler.schedules.remove("daily")
    assert scheduler.schedules.put(DAILY, owner="")[1]
    clock.to("2026-03-27T02:10")
    scheduler.schedules.plan()
    assert slots(scheduler) == ["03-27T01:30"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cron": "61 * * * *"}, "cron cannot be"),
        ({"cron": "* * * * * *"}, "cron cannot be"),
        ({"cron": "0 0 32 2 *"}, "cron cannot be '0 0 32 2 \\*'\n"),
        ({"cron": "0 0 30 13 *"}, "cron cannot be '0 0 30 13 \\*'\n"),
        ({"cron": "0 0 30 2 *"}, "no such time ever comes"),
        # A fifth Monday on the first of a month.
        ({"cron": "0 0 */31 * 1#5"}, "no such time ever comes"),
        ({"cron": f"*/{'9' * 5000} 0 * * *"}, "cron cannot be"),
        ({"timezone": "Europe/Nowhere"}, "no time zone"),
        ({"timezone": f"{'a/' * 3000}a"}, "no time zone"),
        ({"timezone": "../../etc/passwd"}, "no time zone"),
        ({"name": "No Name"}, "cannot be called"),
        ({"deliver": ("three",)}, "no target 'three'"),
        ({"deliver": ("theirs",)}, "no target 'theirs'"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(scheduler: Scheduler, wrong, said) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        scheduler.schedules.put(replace(DAILY, **wrong), owner="")
    assert caught.value.fix
    assert scheduler.schedules.all() == []


def test_schedules_of_the_settings_come_and_go_with_them(scheduler: Scheduler) -> None:
    scheduler.schedules.put(replace(DAILY, name="mine"), owner="k")
    scheduler.schedules.take_settings([DAILY])
    scheduler.schedules.take_settings([replace(DAILY, name="other")])
    assert [(row.schedule.name, row.origin) for row in scheduler.schedules.all()] == [
        ("mine", "api"),
        ("other", "config"),
    ]
    with pytest.raises(UsageError, match="was set over the API"):
        scheduler.schedules.take_settings([replace(DAILY, name="mine")])


def test_a_pause_plans_nothing_and_what_would_have_come_is_not_missed(service_db: Path | str, clock: Clock) -> None:
    scheduler = Scheduler(service_db, clock)
    scheduler.schedules.put(replace(DAILY, missed="all"), owner="")
    clock.to("2026-03-27T12:00")
    assert scheduler.schedules.plan() == 1
    scheduler.schedules.put(replace(PAUSED, missed="all"), owner="")
    clock.to("2026-04-03T12:00")
    assert scheduler.schedules.plan() == 0
    scheduler.schedules.put(replace(DAILY, missed="all"), owner="")
    clock.to("2026-04-04T12:00")
    assert scheduler.schedules.plan() == 1
    assert len(scheduler.reports.newest(schedule="daily", limit=10)) == 2


def test_a_schedule_that_is_not_paused_is_written_as_it_was_before_there_were_pauses() -> None:
    assert "paused" not in DAILY.spec()
    assert '"paused": true' in PAUSED.spec()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "A b"}, "name"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"timezone": "Mars"}, "timezone"),
        ({"deliver": ("theirs",)}, "deliver"),
    ],
)
def test_what_is_wrong_names_its_field(
    service_db: Path | str, clock: Clock, change: dict[str, object], field: str
) -> None:
    scheduler = Scheduler(service_db, clock)
    with pytest.raises(WrongScheduleError) as caught:
        scheduler.schedules.put(replace(DAILY, **change), owner="")
    assert caught.value.field == field
    assert caught.value.fix
    assert scheduler.schedules.all() == []
