"""`graphtide bench`: speed against peers, measured in one interleaved run."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from forecasting.cli.call import console, interruptible, say
from infra.errors import GraphtideError, UsageError
from infra.whole_file import refuse_unwritable, whole_file

if TYPE_CHECKING:
    from forecasting.bench.report import Report

bench = typer.Typer(no_args_is_help=True, help="Speed against peers, in one interleaved run on this machine.")

BudgetOption = Annotated[
    float, typer.Option("--budget", metavar="SECONDS", min=0, help="Time of the rounds of each group of cases.")
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON object to this file too.")]
ChartOption = Annotated[Path | None, typer.Option("--chart", metavar="FILE.html", help="Draw the figures there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(bench, name="bench")


@bench.command()
def rollout(
    budget_s: BudgetOption = 30.0,
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="Only groups with TEXT in a case's name.")] = "",
    output: OutputOption = None,
    chart: ChartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a step of a long rollout against Hugging Face, torch, torch.compile and the floor of this machine.

    Peers are installed on first use, in environments of their own under ~/.cache/graphtide/bench.

    Example: graphtide bench rollout --only b1-d128l4-fp32 --chart rollout.html
    """
    from forecasting.bench.rollout import measure  # noqa: PLC0415 - imports torch

    def run() -> "Report":
        words = ["graphtide", "bench", "rollout", "--budget", f"{budget_s:g}", *(["--only", only] if only else [])]
        return measure(command=shlex.join(words), budget_s=budget_s, only=only, say=say)

    _bench(run, output, chart, as_json)


@bench.command()
def prefill(
    budget_s: BudgetOption = 30.0,
    output: OutputOption = None,
    chart: ChartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time the reading of a history of 36,500 steps against Hugging Face.

    Example: graphtide bench prefill --json
    """
    from forecasting.bench.prefill import measure  # noqa: PLC0415 - imports torch

    def run() -> "Report":
        return measure(command=f"graphtide bench prefill --budget {budget_s:g}", budget_s=budget_s, say=say)

    _bench(run, output, chart, as_json)


@bench.command()
def ingest(
    cases: Annotated[
        str, typer.Option("--cases", metavar="NAME,…", help="Only these cases; all unless given.", show_default=False)
    ] = "",
    runs: Annotated[int, typer.Option("--runs", min=1, help="Turns of each system.")] = 3,
    output: OutputOption = None,
    chart: ChartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time ingestion from Kafka against kafka-python, Bytewax and Quix Streams, all on one broker that this starts.

    Peers are installed on first use, in environments of their own under ~/.cache/graphtide/bench. The broker is what
    .ci/servers installs; the extras `fast` and `bench` of this package are needed.

    Example: graphtide bench ingest --cases three-counts,rss --json
    """
    try:
        from forecasting.bench.ingest import CASES, measure  # noqa: PLC0415 - needs what the extra brings
    except ModuleNotFoundError as error:
        raise UsageError(f"this benchmark needs {error.name}", fix="pip install 'graphtide[bench]'") from error
    chosen = [name.strip() for name in cases.split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(CASES))
    if unknown:
        raise UsageError(f"--cases: there is no case {unknown[0]!r}", fix=f"use some of {', '.join(CASES)}")

    def run() -> "Report":
        words = [
            "graphtide",
            "bench",
            "ingest",
            "--runs",
            str(runs),
            *(["--cases", ",".join(chosen)] if chosen else []),
        ]
        return measure(command=shlex.join(words), cases=chosen or CASES, runs=runs, say=say)

    _bench(run, output, chart, as_json, how="medians of interleaved runs")


@bench.command()
def api(
    budget_s: BudgetOption = 30.0,
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="Only groups with TEXT in a case's name.")] = "",
    output: OutputOption = None,
    chart: ChartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time the forecast service against LitServe, BentoML and Ray Serve around the same forecaster.

    Peers are installed on first use, in environments of their own under ~/.cache/graphtide/bench; the extra `bench` of
    this package is needed. With its default budget it takes about six minutes.

    Example: graphtide bench api --only short-p --budget 20
    """
    try:
        from forecasting.bench.api import measure  # noqa: PLC0415 - needs what the extra brings
    except ModuleNotFoundError as error:
        raise UsageError(f"this benchmark needs {error.name}", fix="pip install 'graphtide[bench]'") from error

    def run() -> "Report":
        words = ["graphtide", "bench", "api", "--budget", f"{budget_s:g}", *(["--only", only] if only else [])]
        return measure(command=shlex.join(words), budget_s=budget_s, only=only, say=say)

    _bench(run, output, chart, as_json, how="medians of interleaved turns")


def _bench(
    run: Callable[[], "Report"],
    output: Path | None,
    chart: Path | None,
    as_json: bool,
    how: str = "one thread; best of the windows",
) -> None:
    from forecasting.bench.processes import PeerError  # noqa: PLC0415

    if chart is not None and chart.suffix != ".html":
        raise UsageError(f"--chart cannot be {chart}", fix="name an .html file")
    for path in filter(None, (output, chart)):
        refuse_unwritable(path)
    try:
        with interruptible("Nothing was written; environments of peers are kept."):
            report = run()
    except PeerError as error:
        raise GraphtideError(f"nothing can be measured: {error}") from error
    if not report.rows:
        raise UsageError("--only names no case", fix="leave it out to see all cases")
    text = json.dumps(report.as_json(), indent=2) + "\n"
    if as_json:
        sys.stdout.write(text)
    else:
        _show(report, how)
    if output is not None:
        with whole_file(output) as part:
            part.write_text(text, encoding="utf-8")
    if chart is not None:
        from forecasting.bench.chart import write_chart  # noqa: PLC0415 - imports Bokeh

        write_chart(report, chart)


def _show(report: "Report", how: str) -> None:
    ratios = {(ratio.case, ratio.peer): ratio for ratio in report.ratios}
    table = Table(box=None, title=f"{report.hardware['cpu']}, {how}", title_justify="left")
    for title in ("case", "system", "value", "median", "unit", "graphtide is ahead by", "target"):
        table.add_column(title, justify="left" if title in {"case", "system", "unit"} else "right")
    last = ""
    for row in report.rows:
        if last and row.case != last:
            table.add_section()
        ratio = ratios.get((row.case, row.system))
        cells = ["", ""]
        if ratio is not None:
            cells[0] = f"{ratio.ratio:.3g}x"
            if ratio.target is not None:
                colour = "green" if ratio.met else "red"
                cells[0], cells[1] = (
                    f"[{colour}]{cells[0]}[/]",
                    f"{ratio.target:.3g}x {'met' if ratio.met else 'missed'}",
                )
        usual = "" if row.median is None else _figure(row.median)
        table.add_row(row.case if row.case != last else "", row.system, _figure(row.value), usual, row.unit, *cells)
        last = row.case
    console().print(table)
    for missing in report.missing:
        say(f"not measured: {missing.case}, {missing.system}: {missing.reason}")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
