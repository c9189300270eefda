"""`graphtide report`: one long-horizon report now; `report schedule` keeps the calendar."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from forecasting.cli import report_schedule
from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.engines import Engine, EngineOption, RayAddressOption, check_engine
from forecasting.cli.store import StoreOption
from infra.errors import StoreError, UsageError
from infra.whole_file import refuse_unwritable, whole_file

if TYPE_CHECKING:
    from forecasting.reports.making import Report
    from infra.settings import Settings
    from stream.store.base import SnapshotReader

MAKE = "make"
INDEX_NAME = "index.html"


class _Reports(TyperGroup):
    """`report GRAPH` is `report make GRAPH`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


report_app = typer.Typer(
    name="report",
    cls=_Reports,
    help="Long-horizon reports: `graphtide report GRAPH` makes one now, `report schedule` keeps the calendar.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file, and those of the schedule."""
    report_app.add_typer(report_schedule.schedule_app)
    app.add_typer(report_app)


@report_app.command(MAKE)
def make(
    ctx: typer.Context,
    graphs: Annotated[
        list[str] | None, typer.Argument(help="Names of graphs.", metavar="GRAPH…", show_default=False)
    ] = None,
    all_graphs: Annotated[bool, typer.Option("--all", help="All graphs of the store.")] = False,
    horizon: Annotated[str | None, typer.Option("--horizon", metavar="N", help="Steps ahead, 1 to 36500.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="HTML file, or a folder; the data lies beside."),
    ] = None,
    as_pdf: Annotated[bool, typer.Option("--pdf", help="Also print the page as PDF; needs Chromium.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the report says as JSON; write no file.")] = False,
    seed: Annotated[
        str | None, typer.Option("--seed", metavar="N", help="The same seed gives the same report.")
    ] = None,
    engine: EngineOption = Engine.LOCAL,
    ray_address: RayAddressOption = None,
    store: StoreOption = None,
) -> None:
    """Make one self-contained page on what comes, and a bundle of its data; for several graphs, an index too.

    The report is also kept in the service's file: the next one is compared with it.

    Example: graphtide report town --horizon 8760 --output town.html
    """
    check_engine(engine, ray_address)
    if bool(graphs) == all_graphs:
        raise UsageError("name the graphs of the reports or give --all, one of the two", fix="graphtide graphs")
    call: Call = ctx.obj
    settings = call.load(
        {
            "reports.horizon": ("--horizon", horizon),
            "forecast.seed": ("--seed", seed),
            "ray.address": ("--ray-address", ray_address),
            "store.url": ("--store", store),
        }
    ).values
    if as_json and as_pdf:
        raise UsageError("--json writes no file, so there is nothing to print", fix="leave --json or --pdf out")
    if as_pdf:
        from forecasting.reports.pdf import find_browser  # noqa: PLC0415

        # Told before minutes are spent on a report that could not be printed.
        find_browser(settings.reports.browser)
    from stream.store import open_reader  # noqa: PLC0415

    with (
        interruptible("Reports that were named above are complete; run the same command again for the others."),
        open_reader(settings.store.url, settings.influxdb) as reader,
    ):
        names = list(dict.fromkeys(graphs or _begun(reader)))
        if as_json and len(names) > 1:
            raise UsageError("--json prints one report", fix="name one graph, or leave --json out")
        files = _places(names, output)
        if not as_json:
            beside = (".zip", ".pdf") if as_pdf else (".zip",)
            for file in files.values():
                for place in (file, *map(file.with_suffix, beside)):
                    refuse_unwritable(place)
        made: dict[str, dict[str, Any]] = {}

        def finish(name: str, report: "Report") -> None:
            made[name] = report.facts
            if as_json:
                from forecasting.reports.documents import as_text  # noqa: PLC0415 - imports Arrow

                sys.stdout.write(as_text(report.facts))
                return
            _write(files[name], report.html)
            _write(files[name].with_suffix(".zip"), report.bundle)
            if as_pdf:
                _print(report.html, files[name].with_suffix(".pdf"), settings)
            say(f"Wrote {files[name]} and {files[name].with_suffix('.zip').name}: {report.facts['summary'][0]}")

        from forecasting.cli import report_engines  # noqa: PLC0415 - imports torch

        make_reports = report_engines.on_ray if engine is Engine.RAY else report_engines.here
        make_reports(names, settings, reader, finish)
    if len(names) > 1:
        _write_index(files, made)


def _begun(reader: "SnapshotReader") -> list[str]:
    """Return the graphs that have a closed step, and tell of those that have none: a young one holds up no other."""
    infos = reader.graphs()
    for info in infos:
        if not info.snapshots:
            say(f"{info.name}: left out: it has no closed step yet")
    names = [info.name for info in infos if info.snapshots]
    if not names:
        lacks = "no graph to report on" if not infos else "no graph with a closed step to report on"
        raise StoreError(f"the store has {lacks}", fix="ingest events first: graphtide ingest")
    return names


def _places(names: list[str], output: Path | None) -> dict[str, Path]:
    if len(names) == 1 and not (output is not None and output.is_dir()):
        path = output or Path(_file_name(names[0]))
        if path.suffix in (".zip", ".pdf"):
            raise UsageError(f"--output cannot be {path}", fix="name an HTML file; the .zip and the .pdf lie beside it")
        return {names[0]: path}
    folder = output or Path("reports")
    if folder.is_file():
        raise UsageError(f"--output is the file {folder}", fix="name a folder for the reports of several graphs")
    return {name: folder / _file_name(name) for name in names}


def _file_name(graph: str) -> str:
    # A colon is no part of a file's name everywhere, a tilde no part of a graph's.
    return f"report-{graph.replace(':', '~')}.html"


def _write_index(files: dict[str, Path], made: dict[str, dict[str, Any]]) -> None:
    """Write a page beside several reports that leads to each; `files` and `made` are by graph."""
    from forecasting.reports.index import entry, render_index  # noqa: PLC0415

    entries = [entry(made[name], file.name) for name, file in files.items()]
    page = render_index(entries, max(facts["made"] for facts in made.values()))
    index = next(iter(files.values())).with_name(INDEX_NAME)
    _write(index, page.encode())
    say(f"Wrote {index}")


def _print(html: bytes, path: Path, settings: "Settings") -> None:
    from forecasting.reports.pdf import print_page  # noqa: PLC0415

    content = print_page(html, program=settings.reports.browser, timeout_s=settings.reports.print_timeout_s)
    _write(path, content)
    say(f"Wrote {path}")


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
