"""A slot of a schedule gives one report, whatever the clock does; a delivery keeps its key at every try."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecasting.jobs import Status, TooManyJobsError
from forecasting.reports.contents import ReportRequest
from forecasting.reports.deliveries import Deliveries, Delivery, DeliveryError
from forecasting.reports.records import FACTS, HTML, SKIPPED, LostReportError, Reports
from forecasting.reports.schedules import MAX_SLOTS, Schedule, Schedules, WrongScheduleError
from forecasting.reports.sending import send_next
from forecasting.reports.targets.parcel import Parcel
from forecasting.service_file import ServiceFile
from infra.errors import StoreError, UsageError
from infra.settings import JobSettings, ReportSettings, TargetSettings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REQUEST = ReportRequest(100, 0, 20)
SETTINGS = ReportSettings(
    targets={
        "one": TargetSettings(kind="folder", path="a"),  # type: ignore[arg-type]
        "two": TargetSettings(kind="folder", path="b"),  # type: ignore[arg-type]
        "theirs": TargetSettings(kind="folder", path="c", graphs=["shop.*"]),  # type: ignore[arg-type]
    }
)
JOBS = JobSettings(lease_s=10, max_attempts=3)
DAILY = Schedule("daily", "town", "30 2 * * *", "Europe/Berlin", REQUEST, ("one", "two"))


PAUSED = replace(DAILY, paused=True)


def us(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


class Clock:
    def __init__(self, text: str) -> None:
        self.now = us(text)

    def __call__(self) -> int:
        return self.now

    def to(self, text: str) -> None:
        self.now = us(text)


class Side:
    """One process: its own connection to the shared file."""

    def __init__(self, place: Path | str, clock: Clock) -> None:
        self.file = ServiceFile(place)
        self.schedules = Schedules(self.file, SETTINGS, clock)
        self.reports = Reports(self.file, SETTINGS, JOBS, clock)
        self.deliveries = Deliveries(self.file, SETTINGS, lease_s=60, clock=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-03-27T00:00")


@pytest.fixture
def side(service_db: Path | str, clock: Clock):
    found = Side(service_db, clock)
    yield found
    found.file.close()


def slots(side: Side, status: str | None = None) -> list[str]:
    rows = side.reports.newest(schedule="daily", limit=1000)
    shown = [row for row in rows if status is None or row.status == status]
    return sorted((EPOCH + timedelta(microseconds=row.slot_us or 0)).strftime("%m-%dT%H:%M") for row in shown)


def test_each_day_has_one_report_where_the_clock_is_put_forward(side: Side, clock: Clock) -> None:
    """29 March has no 02:30 in Berlin: it fires behind the gap, at 03:00, which is 01:00 in UTC."""
    side.schedules.put(DAILY, owner="")
    for day in range(27, 32):
        for hour in range(24):
            clock.to(f"2026-03-{day}T{hour:02}:31")
            side.schedules.plan()
    expected = ["03-27T01:30", "03-28T01:30", "03-29T01:00", "03-30T00:30", "03-31T00:30"]
    # The look at 01:31 comes 31 minutes late to the slot of 01:00: the latest of those missed.
    assert slots(side, Status.QUEUED) == expected


def test_each_day_has_one_report_where_the_clock_is_put_back(side: Side, clock: Clock) -> None:
    clock.to("2026-10-24T00:00")
    side.schedules.put(DAILY, owner="")
    for day in (24, 25, 26):
        for minute in range(0, 6 * 60, 10):
            clock.to(f"2026-10-{day}T{minute // 60:02}:{minute % 60:02}")
            side.schedules.plan()
    assert slots(side) == ["10-24T00:30", "10-25T00:30", "10-26T01:30"]


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
def test_missed_slots_follow_the_policy(side: Side, clock: Clock, missed, made, skipped) -> None:
    side.schedules.put(replace(DAILY, missed=missed), owner="")
    clock.to("2026-03-29T12:00")
    assert side.schedules.plan() == 3
    assert slots(side, Status.QUEUED) == made
    assert slots(side, SKIPPED) == skipped
    assert side.schedules.plan() == 0
    for row in side.reports.newest(schedule="daily", limit=9):
        assert next(line for _, line in side.reports.log(row.id)).startswith(
            "due" if row.status != SKIPPED else "skipped"
        )


def test_a_slot_within_the_grace_is_none_that_was_missed(side: Side, clock: Clock) -> None:
    side.schedules.put(replace(DAILY, missed="skip"), owner="")
    clock.to("2026-03-27T01:34")
    side.schedules.plan()
    assert slots(side, Status.QUEUED) == ["03-27T01:30"]


def test_a_long_pause_is_planned_in_parts_and_only_the_latest_is_made(side: Side, clock: Clock) -> None:
    side.schedules.put(replace(DAILY, cron="* * * * *", timezone="UTC"), owner="")
    clock.to("2026-03-27T20:00")
    looks = [side.schedules.plan() for _ in range(4)]
    assert looks == [MAX_SLOTS, MAX_SLOTS, 1200 - 2 * MAX_SLOTS, 0]
    queued = [row for row in side.reports.newest(schedule="daily", limit=2000) if row.status == Status.QUEUED]
    # Those within the grace of five minutes are not missed at all.
    assert next(row.slot_us for row in queued) == us("2026-03-27T20:00")
    assert len(queued) == 6


def test_two_schedulers_plan_a_slot_once(service_db: Path | str, clock: Clock) -> None:
    sides = [Side(service_db, clock) for _ in range(2)]
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


def test_a_schedule_that_is_set_again_makes_no_slot_twice(side: Side, clock: Clock) -> None:
    side.schedules.put(DAILY, owner="")
    clock.to("2026-03-27T02:00")
    side.schedules.plan()
    assert not side.schedules.put(DAILY, owner="")[1]
    clock.to("2026-03-27T01:00")  # the clock of another machine is behind
    side.schedules.remove("daily")
    assert side.schedules.put(DAILY, owner="")[1]
    clock.to("2026-03-27T02:10")
    side.schedules.plan()
    assert slots(side) == ["03-27T01:30"]


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
def test_a_schedule_that_cannot_work_is_refused(side: Side, wrong, said) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        side.schedules.put(replace(DAILY, **wrong), owner="")
    assert caught.value.fix
    assert side.schedules.all() == []


def test_schedules_of_the_settings_come_and_go_with_them(side: Side) -> None:
    side.schedules.put(replace(DAILY, name="mine"), owner="k")
    side.schedules.take_settings([DAILY])
    side.schedules.take_settings([replace(DAILY, name="other")])
    assert [(row.schedule.name, row.origin) for row in side.schedules.all()] == [("mine", "api"), ("other", "config")]
    with pytest.raises(UsageError, match="was set over the API"):
        side.schedules.take_settings([replace(DAILY, name="mine")])


def queued(side: Side, clock: Clock, days: int = 1) -> None:
    side.schedules.put(replace(DAILY, missed="all"), owner="")
    clock.to(f"2026-03-{26 + days}T12:00")
    side.schedules.plan()


def test_one_report_of_a_schedule_is_made_at_a_time(side: Side, clock: Clock) -> None:
    queued(side, clock, days=2)
    first = side.reports.claim("a")
    assert first is not None
    assert side.reports.claim("b") is None
    side.reports.finish(first, {HTML: b"x"}, 5, ["done"])
    second = side.reports.claim("b")
    assert second is not None
    assert second.slot_us is not None
    assert second.slot_us > (first.slot_us or 0)


def test_who_was_taken_over_keeps_nothing(side: Side, clock: Clock) -> None:
    queued(side, clock)
    first = side.reports.claim("a")
    assert first is not None
    clock.now += 11_000_000
    second = side.reports.claim("b")
    assert second is not None
    assert second.id == first.id
    for late in (
        lambda: side.reports.finish(first, {HTML: b"old"}, 5, []),
        lambda: side.reports.renew(first, 1),
        lambda: side.reports.fail(first, "no"),
    ):
        with pytest.raises(LostReportError):
            late()
    assert side.reports.body(first.id, HTML) is None
    side.reports.finish(second, {HTML: b"new", FACTS: b"{}"}, 5, ["said"])
    assert side.reports.body(first.id, HTML) == b"new"
    done = side.reports.get(first.id)
    assert done is not None
    assert (done.status, done.summary) == (Status.DONE, ("said",))
    assert [delivery.target for delivery in side.deliveries.of(first.id)] == ["one", "two"]


def test_a_report_whose_process_always_dies_ends_as_failed(side: Side, clock: Clock) -> None:
    queued(side, clock)
    for _ in range(3):
        assert side.reports.claim("a") is not None
        clock.now += 11_000_000
    assert side.reports.claim("a") is None
    (row,) = side.reports.newest(limit=5)
    assert (row.status, row.problem) == (Status.FAILED, "its process ended several times while it was made")


def delivered(side: Side, clock: Clock) -> str:
    queued(side, clock)
    report = side.reports.claim("a")
    assert report is not None
    side.reports.finish(report, {HTML: b"x"}, 5, [])
    return report.id


def test_a_delivery_that_fails_is_tried_again_under_the_same_key(side: Side, clock: Clock) -> None:
    report_id = delivered(side, clock)
    keys = []
    for number in range(1, 4):
        delivery = side.deliveries.claim()
        assert delivery is not None
        while delivery.target != "one":
            side.deliveries.done(delivery)
            delivery = side.deliveries.claim()
            assert delivery is not None
        keys.append(delivery.id)
        assert delivery.attempts == number
        assert side.deliveries.failed(delivery, DeliveryError("away"))
        assert side.deliveries.claim() is None or number == 1
        clock.now += 3600 * 1_000_000
    assert len(set(keys)) == 1
    lines = [line for _, line in side.reports.log(report_id)]
    assert sum("not delivered to one" in line for line in lines) == 3


def test_a_mistake_in_one_delivery_holds_up_no_other(
    side: Side, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    report_id, address = delivered(side, clock), "https://hooks.example/secret"

    def broken(_delivery: Delivery) -> Parcel:
        raise ZeroDivisionError(address)

    assert send_next(side.deliveries, broken, SETTINGS)
    assert send_next(side.deliveries, broken, SETTINGS)
    assert not send_next(side.deliveries, broken, SETTINGS)
    found = side.deliveries.of(report_id)
    assert [(one.status, one.attempts) for one in found] == [("waiting", 1), ("waiting", 1)]
    assert all("went wrong" in (one.problem or "") for one in found)
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_a_delivery_without_the_service_s_file_is_no_failed_try(side: Side, clock: Clock) -> None:
    report_id = delivered(side, clock)

    def away(_delivery: Delivery) -> Parcel:
        raise StoreError("the file is away")

    with pytest.raises(StoreError):
        send_next(side.deliveries, away, SETTINGS)
    assert all(one.problem is None for one in side.deliveries.of(report_id))


def test_a_delivery_is_given_up_in_the_end_or_at_once(side: Side, clock: Clock) -> None:
    report_id = delivered(side, clock)
    first = side.deliveries.claim()
    assert first is not None
    side.deliveries.failed(first, DeliveryError("gone", is_final=True))
    second = side.deliveries.claim()
    assert second is not None
    clock.now += 86_400 * 1_000_000
    side.deliveries.failed(second, DeliveryError("away"))
    assert [delivery.status for delivery in side.deliveries.of(report_id)] == ["failed", "failed"]
    assert side.deliveries.claim() is None


def test_a_delivery_whose_process_died_is_taken_over_and_the_dead_cannot_note_it(side: Side, clock: Clock) -> None:
    delivered(side, clock)
    first = side.deliveries.claim()
    other = side.deliveries.claim()
    assert first is not None
    assert other is not None
    assert side.deliveries.done(other)
    assert side.deliveries.claim() is None
    clock.now += 61_000_000
    again = side.deliveries.claim()
    assert again is not None
    assert again.id == first.id
    assert not side.deliveries.done(first)
    assert side.deliveries.done(again)


def test_too_many_reports_are_refused(side: Side) -> None:
    for _ in range(SETTINGS.max_active_per_key):
        side.reports.create("k", "town", REQUEST)
    with pytest.raises(TooManyJobsError) as caught:
        side.reports.create("k", "town", REQUEST)
    assert caught.value.of_caller


def test_old_reports_go_but_none_that_is_still_delivered(side: Side, clock: Clock) -> None:
    report_id = delivered(side, clock)
    clock.now += (SETTINGS.keep_s + 1) * 1_000_000
    side.reports.sweep()
    assert side.reports.get(report_id) is not None
    while (delivery := side.deliveries.claim()) is not None:
        side.deliveries.done(delivery)
    side.reports.sweep()
    assert side.reports.get(report_id) is None
    assert side.reports.body(report_id, HTML) is None
    assert side.deliveries.of(report_id) == []


def test_a_pause_plans_nothing_and_what_would_have_come_is_not_missed(service_db: Path | str, clock: Clock) -> None:
    side = Side(service_db, clock)
    side.schedules.put(replace(DAILY, missed="all"), owner="")
    clock.to("2026-03-27T12:00")
    assert side.schedules.plan() == 1
    side.schedules.put(replace(PAUSED, missed="all"), owner="")
    clock.to("2026-04-03T12:00")
    assert side.schedules.plan() == 0
    side.schedules.put(replace(DAILY, missed="all"), owner="")
    clock.to("2026-04-04T12:00")
    assert side.schedules.plan() == 1
    assert len(side.reports.newest(schedule="daily", limit=10)) == 2


def test_a_schedule_that_is_not_paused_is_written_as_it_was_before_there_were_pauses() -> None:
    assert "paused" not in DAILY.spec()
    assert '"paused": true' in PAUSED.spec()


def test_a_deleted_report_leaves_nothing_and_its_process_finds_out(service_db: Path | str, clock: Clock) -> None:
    side = Side(service_db, clock)
    side.schedules.put(DAILY, owner="")
    clock.to("2026-03-27T12:00")
    assert side.schedules.plan() == 1
    report = side.reports.claim("w")
    assert report is not None
    assert side.reports.delete(report.id)
    assert not side.reports.delete(report.id)
    with pytest.raises(LostReportError):
        side.reports.finish(report, {HTML: b"", FACTS: b"{}"}, clock.now, [])
    assert side.reports.get(report.id) is None
    assert side.reports.body(report.id, HTML) is None
    assert side.reports.log(report.id) == []
    assert side.deliveries.claim() is None
    assert side.schedules.plan() == 0, "a slot whose report was deleted is no open slot"


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
    side = Side(service_db, clock)
    with pytest.raises(WrongScheduleError) as caught:
        side.schedules.put(replace(DAILY, **change), owner="")
    assert caught.value.field == field
    assert caught.value.fix
    assert side.schedules.all() == []
