"""`graphtide datasets`: public logs by name, where they lie, and how to get them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from forecasting.cli.call import Call, console, interruptible, say
from forecasting.cli.progress import progress
from infra.errors import InputError

if TYPE_CHECKING:
    from infra.settings import DataSettings
    from stream.sources.catalog import DatasetInfo

datasets = typer.Typer(no_args_is_help=True, help="Public logs by name: list them, fetch them, say where they are.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(datasets, name="datasets")


@datasets.command("list")
def list_(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the data sets that are known by name, and where each was found.

    Example: graphtide datasets list
    """
    from stream.sources.datasets import DATASETS  # noqa: PLC0415 - takes an HTTP client along

    call: Call = ctx.obj
    settings = call.load().values.data
    rows = [_row(info, settings) for info in DATASETS.values()]
    if as_json:
        import msgspec  # noqa: PLC0415

        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    table = Table(box=None)
    for title in ("name", "what", "events", "nodes", "step", "span", "found"):
        table.add_column(title, justify="right" if title in {"events", "nodes"} else "left")
    for row in rows:
        counts = (f"{row['events']:,}", f"{row['nodes']:,}")
        found = row["path"] or row["problem"] or "not here"
        table.add_row(row["name"], row["title"], *counts, row["step"], row["span"], found)
    console().print(table)
    say("Get one with: graphtide datasets fetch NAME. Each publisher asks to be cited; --json has the citations.")


def _row(info: "DatasetInfo", settings: "DataSettings") -> dict[str, Any]:
    from stream.sources.datasets import find_local  # noqa: PLC0415

    path, problem = None, None
    try:
        path = find_local(info, settings.folders())
    except InputError as error:
        problem = error.message
    return {
        "name": info.name,
        "title": info.title,
        "events": info.events,
        "nodes": info.nodes,
        "span": info.span,
        "step": info.step,
        "path": None if path is None else str(path),
        "problem": problem,
        "publisher": info.publisher,
        "page": info.page,
        "citation": info.citation,
        "licence": info.licence,
        "note": info.note,
    }


@datasets.command()
def fetch(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Names of data sets.", show_default=False)],
) -> None:
    """Fetch data sets from their publishers, digests checked; what is there already is not fetched again.

    Example: graphtide datasets fetch sx-mathoverflow
    """
    from stream.sources.datasets import dataset, find  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load().values.data
    # A wrong name is told before the first download.
    for info in [dataset(name) for name in names]:
        with (
            interruptible("Complete files are kept; run the same command again."),
            progress(f"Fetching {info.name}") as report,
        ):
            path = find(
                info.name,
                folders=[settings.directory],
                cache=settings.cache,
                mirror=settings.mirror or None,
                timeout_s=settings.timeout_s,
                progress=lambda done, total, report=report: report(done, total, "bytes"),  # type: ignore[misc]
            )
        typer.echo(path)
        say(f"Cite {info.citation}; {info.licence}")


@datasets.command("path")
def path_(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="Name of a data set.", show_default=False)]
) -> None:
    """Print the path of a data set that is there, for use in other commands.

    Example: graphtide ingest "$(graphtide datasets path CollegeMsg)" --graph college
    """
    from stream.sources.datasets import dataset, find_local  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load().values.data
    info = dataset(name)
    found: Path | None = find_local(info, settings.folders())
    if found is None:
        raise InputError(
            f"the data set {info.name} is not in {' or '.join(map(str, settings.folders()))}",
            fix=f"graphtide datasets fetch {info.name}, or set GRAPHTIDE_DATA_DIR to the folder that has it",
        )
    typer.echo(found)
