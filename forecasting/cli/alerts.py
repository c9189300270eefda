"""`graphtide alerts`: what fires, and what a rule would say now."""

from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.alerts.machine import State
from forecasting.cli.arguments import split_list
from forecasting.cli.call import Call, say
from forecasting.cli.listing import show_rows
from forecasting.cli.store import StoreOption
from forecasting.service_file import ServiceFile
from infra.errors import StoreError, UsageError
from infra.steps import format_time

if TYPE_CHECKING:
    from forecasting.alerts.records import Judgement
    from forecasting.alerts.rulebook import RuleRow
    from infra.settings import Settings

alerts_app = typer.Typer(name="alerts", help="What fires, and what a rule would say: list, test.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON array.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(alerts_app)


@alerts_app.command("list")
def list_alerts(
    ctx: typer.Context,
    graph: Annotated[str | None, typer.Option("--graph", metavar="NAME", help="Of this graph alone.")] = None,
    state: Annotated[
        str, typer.Option("--state", metavar="A,B,…", help="ok, firing, resolved.")
    ] = f"{State.FIRING},{State.RESOLVED}",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="How many.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List alerts: those that fire first, then the latest that are over.

    Example: graphtide alerts list --state firing
    """
    from forecasting.alerts.messages import sentence  # noqa: PLC0415 - imports numpy
    from forecasting.alerts.records import Alerts  # noqa: PLC0415

    settings = ctx.obj.load().values
    states = split_list(state)
    for one in states:
        if one not in list(State):
            raise UsageError(f"--state cannot be {one!r}", fix=f"give some of {', '.join(State)}")
    with ServiceFile(settings.api.service_db) as file:
        alerts = Alerts(file, keep_s=settings.alerts.keep_s)
        graphs = [name for name in alerts.graphs() if graph in (None, name)]
        rows = alerts.newest(graphs, states, limit=limit)
    shown = [
        {
            "state": row.state,
            "rule": row.rule,
            "graph": row.graph,
            "metric": row.metric or None,
            "since": format_time(row.since_us),
            "acknowledged_by": row.acknowledged_by,
            "id": row.id,
            "summary": sentence(row.graph, row.metric, row.state, row.facts) if row.facts else None,
        }
        for row in rows
    ]
    show_rows(
        shown, as_json, "No alert is or was firing. Rules: docs/alerts.md; graphtide alerts test RULE judges one now."
    )


@alerts_app.command()
def test(
    ctx: typer.Context,
    rule: Annotated[str, typer.Argument(help="Name of the rule.", metavar="RULE", show_default=False)],
    graph: Annotated[str | None, typer.Option("--graph", metavar="NAME", help="In this graph alone.")] = None,
    as_json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Judge a rule now, and show what it says and who would be told. Nothing is kept or sent.

    Example: graphtide alerts test quiet
    """
    from forecasting.alerts.messages import sentence  # noqa: PLC0415 - imports numpy
    from forecasting.alerts.rules import describe  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    with ServiceFile(settings.api.service_db) as file:
        row = _rule(rule, file, settings)
        judged = _judge(row, graph, file, settings)
    shown = [
        {
            "graph": name,
            "metric": one.metric or None,
            "verdict": one.verdict.value,
            "would_tell": row.rule.spec.deliver if one.verdict == "fire" else [],
            "summary": sentence(name, one.metric, "firing" if one.verdict == "fire" else "ok", one.facts),
            "facts": one.facts,
        }
        for name, one in judged
    ]
    say(f"Rule {rule!r}: {describe(row.rule)}.")
    show_rows(
        shown,
        as_json,
        f"The rule {rule!r} has nothing to judge yet: no graph that it watches has a closed step.",
        "facts",
    )


def _rule(name: str, file: ServiceFile, settings: "Settings") -> "RuleRow":
    """Return a rule of the settings, else of the service's file.

    Raises:
        UsageError: there is none, or it cannot work.
    """
    from forecasting.alerts.rulebook import RuleBook, RuleRow  # noqa: PLC0415 - imports numpy
    from forecasting.alerts.rules import checked  # noqa: PLC0415

    given = settings.alerts.rules.get(name)
    if given is not None:
        rule = checked(name, given, settings.reports.targets)
        return RuleRow(rule, "", "config", 0, 0, 0, None)
    row = RuleBook(file).get(name)
    if row is None:
        known = sorted({*settings.alerts.rules, *(one.rule.name for one in RuleBook(file).all())})
        fix = f"name one of {', '.join(known)}" if known else "set one: docs/alerts.md"
        raise UsageError(f"there is no alert rule {name!r}", fix=fix)
    return row


def _judge(row: "RuleRow", graph: str | None, file: ServiceFile, settings: "Settings") -> "list[tuple[str, Judgement]]":
    from forecasting.alerts.trial import judge_now  # noqa: PLC0415 - imports torch
    from forecasting.alerts.watches import Watches  # noqa: PLC0415
    from forecasting.live import LiveStates  # noqa: PLC0415
    from stream.store import open_reader  # noqa: PLC0415

    watches = Watches(file, lease_s=settings.jobs.lease_s)
    found = []
    with (
        open_reader(settings.store.url, settings.influxdb) as reader,
        LiveStates(
            lambda: open_reader(settings.store.url, settings.influxdb), settings.models.directory, max_graphs=1
        ) as states,
    ):
        watched = [info for info in reader.graphs() if row.rule.watches(info.name)]
        chosen = [info for info in watched if graph in (None, info.name) and info.snapshots]
        if graph is not None and not chosen:
            reader.graph(graph)
            raise UsageError(
                f"the rule {row.rule.name!r} does not watch {graph!r}", fix=f"it is for {row.rule.spec.graph}"
            )
        if not watched:
            raise StoreError(f"the store has no graph that {row.rule.name!r} watches: {row.rule.spec.graph}")
        for info in chosen:
            judgements = judge_now(row, info, len(watched), watches, states, reader, settings)
            found += [(info.name, one) for one in judgements]
    return found
