"""`graphtide report schedule`: when reports are made, and what became of each time."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.arguments import split_list
from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.listing import show_rows
from forecasting.service_file import ServiceFile, name_of, now_us
from infra.errors import GraphtideError, UsageError
from infra.steps import format_time

if TYPE_CHECKING:
    from forecasting.reports.schedules import ScheduleRow, Schedules
    from infra.settings import Settings

schedule_app = typer.Typer(
    name="schedule", help="Reports by the calendar: add, list, remove, runs, run.", no_args_is_help=True
)
_MISSED = ("latest", "all", "skip")
NameArgument = Annotated[str, typer.Argument(help="Name of the schedule.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON array.")]


@contextmanager
def _calendar(settings: "Settings") -> Iterator["Schedules"]:
    from forecasting.reports.schedules import Schedules  # noqa: PLC0415 - imports numpy

    with ServiceFile(settings.api.service_db) as file:
        yield Schedules(file, settings.reports)


@schedule_app.command()
def add(
    ctx: typer.Context,
    name: NameArgument,
    graph: Annotated[str, typer.Option("--graph", metavar="NAME", help="Graph of the report.")],
    cron: Annotated[str, typer.Option("--cron", metavar="EXPRESSION", help="Minute, hour, day, month, weekday.")],
    timezone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="Of the cron expression.")] = "UTC",
    horizon: Annotated[str | None, typer.Option("--horizon", metavar="N", help="Steps ahead, 1 to 36500.")] = None,
    deliver: Annotated[str, typer.Option("--deliver", metavar="A,B,…", help="Names of [reports.targets].")] = "",
    missed: Annotated[
        str, typer.Option("--missed", metavar="POLICY", help="Of missed times make the latest, all, or skip them.")
    ] = "latest",
) -> None:
    """Set a schedule; one of the same name is replaced. `graphtide serve` keeps it, or `report schedule run`.

    Example: graphtide report schedule add monday --graph town --cron "0 7 * * 1" --timezone Europe/Berlin
    """
    from forecasting.reports.contents import ReportRequest  # noqa: PLC0415 - imports numpy
    from forecasting.reports.schedules import Schedule  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"reports.horizon": ("--horizon", horizon)}).values
    if missed not in _MISSED:
        raise UsageError(f"--missed cannot be {missed!r}", fix=f"give one of {', '.join(_MISSED)}")
    request = ReportRequest(settings.reports.horizon, settings.forecast.seed, settings.reports.paths)
    targets = tuple(dict.fromkeys(split_list(deliver)))
    schedule = Schedule(name, graph, cron, timezone, request, targets, missed)  # type: ignore[arg-type]
    with _calendar(settings) as schedules:
        schedules.put(schedule, owner="", guard=_check_changeable)
    following = schedule.next_us(now_us())
    say(f"Schedule {name!r}: next at {format_time(following) if following is not None else 'never'} (UTC).")
    if _is_missing(graph, settings):
        say(f"note: the store has no graph {graph!r} yet; no report can be made before it has. See: graphtide graphs")


def _check_changeable(known: "ScheduleRow") -> None:
    if known.origin == "config":
        name = known.schedule.name
        raise UsageError(f"the schedule {name!r} stands in the settings", fix="change it there, or take another name")


def _is_missing(graph: str, settings: "Settings") -> bool:
    """Tell whether the store can be read and has no such graph."""
    from stream.store import open_reader  # noqa: PLC0415 - imports numpy

    try:
        with open_reader(settings.store.url, settings.influxdb) as reader:
            return all(info.name != graph for info in reader.graphs())
    except GraphtideError:
        # A schedule may well be set before the store is there, or while it is away.
        return False


@schedule_app.command("list")
def list_schedules(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the schedules and when each is due next.

    Example: graphtide report schedule list --json
    """
    settings = ctx.obj.load().values
    with _calendar(settings) as schedules:
        rows = schedules.all()
    shown = []
    for row in rows:
        following = row.schedule.next_us(now_us())
        shown.append(
            {
                "name": row.schedule.name,
                "graph": row.schedule.graph,
                "cron": row.schedule.cron,
                "timezone": row.schedule.timezone,
                "horizon": row.schedule.request.horizon,
                "deliver": list(row.schedule.deliver),
                "missed": row.schedule.missed,
                "origin": row.origin,
                "next": None if following is None or row.schedule.paused else format_time(following),
            }
        )
    show_rows(shown, as_json, "There is no schedule. See: graphtide report schedule add --help")


@schedule_app.command()
def remove(ctx: typer.Context, name: NameArgument) -> None:
    """Remove a schedule; its reports stay.

    Example: graphtide report schedule remove monday
    """
    settings = ctx.obj.load().values

    def guard(known: "ScheduleRow") -> None:
        if known.origin == "config" and name in settings.reports.schedules:
            raise UsageError(f"the schedule {name!r} stands in the settings", fix=f"remove [reports.schedules.{name}]")

    with _calendar(settings) as schedules:
        if not schedules.remove(name, guard):
            raise UsageError(f"there is no schedule {name!r}", fix="see: graphtide report schedule list")
    say(f"Schedule {name!r} is removed.")


@schedule_app.command()
def runs(
    ctx: typer.Context,
    name: NameArgument,
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, max=1000, help="How many times.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show what became of the latest times of a schedule: reports, deliveries, and what went wrong.

    Example: graphtide report schedule runs monday --last 5
    """
    from forecasting.reports.deliveries import Deliveries  # noqa: PLC0415 - imports numpy
    from forecasting.reports.records import Reports  # noqa: PLC0415
    from forecasting.reports.schedules import Schedules  # noqa: PLC0415

    settings = ctx.obj.load().values
    with ServiceFile(settings.api.service_db) as file:
        reports = Reports(file, settings.reports, settings.jobs)
        deliveries = Deliveries(file, settings.reports, lease_s=settings.jobs.lease_s)
        rows = reports.newest(schedule=name, limit=last)
        if not rows and Schedules(file, settings.reports).get(name) is None:
            raise UsageError(f"there is no schedule {name!r}", fix="see: graphtide report schedule list")
        shown = [
            {
                "slot": format_time(row.slot_us or 0),
                "status": row.status,
                "report": row.id,
                "deliveries": [f"{one.target}: {one.status}" for one in deliveries.of(row.id)],
                "problem": row.problem,
                "log": [f"{format_time(at)} {line}" for at, line in reports.log(row.id)],
            }
            for row in rows
        ]
    show_rows(shown, as_json, f"No time of {name!r} has come yet.", hidden="log")


@schedule_app.command()
def run(ctx: typer.Context) -> None:
    """Keep the schedules without a service: plan, make and deliver reports until Ctrl-C. Several may run at once.

    Example: graphtide report schedule run
    """
    settings = ctx.obj.load().values
    os.environ["PYTHONSAFEPATH"] = "1"
    from forecasting.configured_schedules import take_schedules  # noqa: PLC0415
    from forecasting.job_processes import report_processes  # noqa: PLC0415 - imports torch

    take_schedules(settings)
    jobs = settings.jobs.model_copy(update={"workers": 1})
    alone = settings.model_copy(update={"jobs": jobs})
    with (
        interruptible("Nothing is lost: what was due goes on when it is started again."),
        report_processes(alone, log_level=logging.getLogger().level),
    ):
        say(f"Keeping the schedules of {name_of(settings.api.service_db)}; Ctrl-C stops.")
        threading.Event().wait()
