"""A report is made by one process at a time and delivered under one key, whichever of them die."""

from pathlib import Path

import pytest

from forecasting.jobs import Status, TooManyJobsError
from forecasting.reports.deliveries import Delivery, DeliveryError
from forecasting.reports.records import FACTS, HTML, LostReportError
from forecasting.reports.sending import send_next
from forecasting.reports.targets.parcel import Parcel
from infra.errors import StoreError
from tests.unit.forecasting.report_cases import DAILY, REQUEST, SETTINGS, Clock, Scheduler, queued


def test_one_report_of_a_schedule_is_made_at_a_time(scheduler: Scheduler, clock: Clock) -> None:
    queued(scheduler, clock, days=2)
    first = scheduler.reports.claim("a")
    assert first is not None
    assert scheduler.reports.claim("b") is None
    scheduler.reports.finish(first, {HTML: b"x"}, 5, ["done"])
    second = scheduler.reports.claim("b")
    assert second is not None
    assert second.slot_us is not None
    assert second.slot_us > (first.slot_us or 0)


def test_who_was_taken_over_keeps_nothing(scheduler: Scheduler, clock: Clock) -> None:
    queued(scheduler, clock)
    first = scheduler.reports.claim("a")
    assert first is not None
    clock.now += 11_000_000
    second = scheduler.reports.claim("b")
    assert second is not None
    assert second.id == first.id
    for late in (
        lambda: scheduler.reports.finish(first, {HTML: b"old"}, 5, []),
        lambda: scheduler.reports.renew(first, 1),
        lambda: scheduler.reports.fail(first, "no"),
    ):
        with pytest.raises(LostReportError):
            late()
    assert scheduler.reports.body(first.id, HTML) is None
    scheduler.reports.finish(second, {HTML: b"new", FACTS: b"{}"}, 5, ["said"])
    assert scheduler.reports.body(first.id, HTML) == b"new"
    done = scheduler.reports.get(first.id)
    assert done is not None
    assert (done.status, done.summary) == (Status.DONE, ("said",))
    assert [delivery.target for delivery in scheduler.deliveries.of(first.id)] == ["one", "two"]


def test_a_report_whose_process_always_dies_ends_as_failed(scheduler: Scheduler, clock: Clock) -> None:
    queued(scheduler, clock)
    for _ in range(3):
        assert scheduler.reports.claim("a") is not None
        clock.now += 11_000_000
    assert scheduler.reports.claim("a") is None
    (row,) = scheduler.reports.newest(limit=5)
    assert (row.status, row.problem) == (Status.FAILED, "its process ended several times while it was made")


def delivered(scheduler: Scheduler, clock: Clock) -> str:
    queued(scheduler, clock)
    report = scheduler.reports.claim("a")
    assert report is not None
    scheduler.reports.finish(report, {HTML: b"x"}, 5, [])
    return report.id


def test_a_delivery_that_fails_is_tried_again_under_the_same_key(scheduler: Scheduler, clock: Clock) -> None:
    report_id = delivered(scheduler, clock)
    keys = []
    for number in range(1, 4):
        delivery = scheduler.deliveries.claim()
        assert delivery is not None
        while delivery.target != "one":
            scheduler.deliveries.done(delivery)
            delivery = scheduler.deliveries.claim()
            assert delivery is not None
        keys.append(delivery.id)
        assert delivery.attempts == number
        assert scheduler.deliveries.failed(delivery, DeliveryError("away"))
        assert scheduler.deliveries.claim() is None or number == 1
        clock.now += 3600 * 1_000_000
    assert len(set(keys)) == 1
    lines = [line for _, line in scheduler.reports.log(report_id)]
    assert sum("not delivered to one" in line for line in lines) == 3


def test_a_mistake_in_one_delivery_holds_up_no_other(
    scheduler: Scheduler, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    report_id, address = delivered(scheduler, clock), "https://hooks.example/secret"

    def broken(_delivery: Delivery) -> Parcel:
        raise ZeroDivisionError(address)

    assert send_next(scheduler.deliveries, broken, SETTINGS)
    assert send_next(scheduler.deliveries, broken, SETTINGS)
    assert not send_next(scheduler.deliveries, broken, SETTINGS)
    found = scheduler.deliveries.of(report_id)
    assert [(one.status, one.attempts) for one in found] == [("waiting", 1), ("waiting", 1)]
    assert all("went wrong" in (one.problem or "") for one in found)
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_a_delivery_without_the_service_s_file_is_no_failed_try(scheduler: Scheduler, clock: Clock) -> None:
    report_id = delivered(scheduler, clock)

    def away(_delivery: Delivery) -> Parcel:
        raise StoreError("the file is away")

    with pytest.raises(StoreError):
        send_next(scheduler.deliveries, away, SETTINGS)
    assert all(one.problem is None for one in scheduler.deliveries.of(report_id))


def test_a_delivery_is_given_up_in_the_end_or_at_once(scheduler: Scheduler, clock: Clock) -> None:
    report_id = delivered(scheduler, clock)
    first = scheduler.deliveries.claim()
    assert first is not None
    scheduler.deliveries.failed(first, DeliveryError("gone", is_final=True))
    second = scheduler.deliveries.claim()
    assert second is not None
    clock.now += 86_400 * 1_000_000
    scheduler.deliveries.failed(second, DeliveryError("away"))
    assert [delivery.status for delivery in scheduler.deliveries.of(report_id)] == ["failed", "failed"]
    assert scheduler.deliveries.claim() is None


def test_a_delivery_whose_process_died_is_taken_over_and_the_dead_cannot_note_it(
    scheduler: Scheduler, clock: Clock
) -> None:
    delivered(scheduler, clock)
    first = scheduler.deliveries.claim()
    other = scheduler.deliveries.claim()
    assert first is not None
    assert other is not None
    assert scheduler.deliveries.done(other)
    assert scheduler.deliveries.claim() is None
    clock.now += 61_000_000
    again = scheduler.deliveries.claim()
    assert again is not None
    assert again.id == first.id
    assert not scheduler.deliveries.done(first)
    assert scheduler.deliveries.done(again)


def test_too_many_reports_are_refused(scheduler: Scheduler) -> None:
    for _ in range(SETTINGS.max_active_per_key):
        scheduler.reports.create("k", "town", REQUEST)
    with pytest.raises(TooManyJobsError) as caught:
        scheduler.reports.create("k", "town", REQUEST)
    assert caught.value.of_caller


def test_old_reports_go_but_none_that_is_still_delivered(scheduler: Scheduler, clock: Clock) -> None:
    report_id = delivered(scheduler, clock)
    clock.now += (SETTINGS.keep_s + 1) * 1_000_000
    scheduler.reports.sweep()
    assert scheduler.reports.get(report_id) is not None
    while (delivery := scheduler.deliveries.claim()) is not None:
        scheduler.deliveries.done(delivery)
    scheduler.reports.sweep()
    assert scheduler.reports.get(report_id) is None
    assert scheduler.reports.body(report_id, HTML) is None
    assert scheduler.deliveries.of(report_id) == []


def test_a_deleted_report_leaves_nothing_and_its_process_finds_out(service_db: Path | str, clock: Clock) -> None:
    scheduler = Scheduler(service_db, clock)
    scheduler.schedules.put(DAILY, owner="")
    clock.to("2026-03-27T12:00")
    assert scheduler.schedules.plan() == 1
    report = scheduler.reports.claim("w")
    assert report is not None
    assert scheduler.reports.delete(report.id)
    assert not scheduler.reports.delete(report.id)
    with pytest.raises(LostReportError):
        scheduler.reports.finish(report, {HTML: b"", FACTS: b"{}"}, clock.now, [])
    assert scheduler.reports.get(report.id) is None
    assert scheduler.reports.body(report.id, HTML) is None
    assert scheduler.reports.log(report.id) == []
    assert scheduler.deliveries.claim() is None
    assert scheduler.schedules.plan() == 0, "a slot whose report was deleted is no open slot"
