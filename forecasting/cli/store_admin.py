"""`graphtide store copy` and `graphtide store verify`; `graphtide erase`."""

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.progress import progress
from forecasting.cli.store import StoreOption
from infra.errors import StoreError

if TYPE_CHECKING:
    from stream.store.sql.erasure import Erased

FROM_HELP = "A store: sqlite:///PATH, postgresql://…, or influxdb://HOST:PORT/ORG/BUCKET."


def register(app: typer.Typer, stores: typer.Typer) -> None:
    """Add the commands of this file to the application, and to those of `graphtide store`."""
    app.command()(erase)
    stores.command()(copy)
    stores.command()(verify)


def copy(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help=FROM_HELP, show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="A new store: sqlite:///PATH or postgresql://….", show_default=False)
    ],
) -> None:
    """Copy a store into another, in one transaction.

    Between SQLite and PostgreSQL everything is copied, so that ingestion goes on from the copy. From InfluxDB the
    snapshots are: enough to serve and to forecast, not to add events.

    Example: graphtide store copy sqlite:///store.db postgresql://localhost/graphtide
    """
    from stream.store import open_reader, open_writer  # noqa: PLC0415 - numpy is not needed for --help
    from stream.store.copy import copy_store  # noqa: PLC0415
    from stream.store.influx.address import address_of_url, is_influx_url  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load().values
    with (
        interruptible("Nothing was copied: a copy is whole or not there."),
        open_reader(source, settings.influxdb) as reader,
        open_writer(target) as writer,
        progress("Copying") as report,
    ):
        origin = address_of_url(source, settings.influxdb).store_url if is_influx_url(source) else ""
        copied = copy_store(reader, writer, lambda rows: report(rows, None, "rows"), origin=origin)
    say(f"Copied {copied.graphs:,} graphs with {copied.snapshots:,} snapshots.")
    if not copied.whole:
        say("There were no nodes and edges to copy: these graphs can be read and forecast, and take no more events.")


def verify(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help=FROM_HELP, show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Another store.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Compare the snapshots of two stores, graph by graph, to the last bit; ends with 1 where they differ.

    Example: graphtide store verify sqlite:///store.db influxdb://localhost:8086/org/graphtide
    """
    from stream.store import open_reader  # noqa: PLC0415
    from stream.store.copy import compare_stores  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load().values
    with open_reader(first, settings.influxdb) as one, open_reader(second, settings.influxdb) as other:
        found = list(compare_stores(one, other))
    if as_json:
        rows = [
            {"graph": each.graph, "snapshots": each.snapshots, "digest": each.digest, "difference": each.difference}
            for each in found
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        for each in found:
            told = f"equal, sha256 {each.digest}" if each.difference is None else each.difference
            sys.stdout.write(f"{each.graph}: {each.snapshots:,} snapshots, {told}\n")
    if any(each.difference is not None for each in found):
        raise typer.Exit(1)


def erase(
    ctx: typer.Context,
    graph: Annotated[str, typer.Argument(help="Name of the graph.", show_default=False)],
    node: Annotated[str, typer.Argument(help="Name of the node, as events name it.", show_default=False)],
    store: StoreOption = None,
) -> None:
    """Erase a node on request: its name leaves the store, with every dead letter and reject that mentions it.

    It leaves the graphs of each event type, NAME:TYPE, too, and the files of rejects beside the store. Snapshots do
    not change: they count, and name nobody. The same name coming again is a new node. What was delivered elsewhere
    (the topic, the dead letter target, backups) is not reached. No ingest may write the store meanwhile. It ends with
    1 where the name may still stand in unused parts of the store's file or in a copy that graphtide store migrate has
    kept beside it, and where events that mention it wait in the spool.

    Example: graphtide erase town alice
    """
    from forecasting.cli.reject_files import drop_lines, reject_folder  # noqa: PLC0415
    from stream.spool.mentions import waiting_mentions  # noqa: PLC0415 - numpy is not needed for --help
    from stream.store import open_reader, open_writer  # noqa: PLC0415
    from stream.store.mention import Mention  # noqa: PLC0415
    from stream.store.migrate import copies_beside  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    with open_reader(settings.store.url) as reader:
        reader.graph(graph)  # an unknown name is told with those that are near
    mention = Mention(node)
    with open_writer(settings.store.url) as writer:
        with writer.transaction():
            state = writer.graph(graph)
            if state is None:
                raise StoreError(f"there is no graph {graph!r}", fix="see: graphtide graphs")
            erased = writer.erase(state, node)
        _say_erased(graph, erased)
        folder = reject_folder(settings.store.url)
        if lines := drop_lines(folder, mention):
            say(f"{lines:,} lines of the files in {folder} that mention it are gone, too.")
        if not writer.database.scrub():
            raise StoreError(
                "the name may still stand in unused parts of the store's files: somebody is reading the store",
                place=writer.database.name,
                fix="stop who reads it, such as graphtide serve, and run the same command again",
            )
        copies = [str(path) for path in copies_beside(settings.store.url)]
    if waiting := waiting_mentions(settings.spool.path, mention):
        raise StoreError(
            f"the name will come back: requests that mention it wait for ingestion, {waiting:,} of them",
            place=f"the spool {settings.spool.path}",
            fix="run graphtide ingest spool, then the same command again",
        )
    if copies:
        raise StoreError(
            "the name may still stand in copies of the store, which graphtide store migrate has kept or a migration or"
            " a restore that was killed has left",
            place=", ".join(copies),
            fix=f"delete them once you need them no longer: rm {shlex.join(copies)}",
        )


def _say_erased(graph: str, erased: "Erased") -> None:
    if not erased.graphs:
        say(f"graph {graph!r} has no node of that name")
    else:
        names = ", ".join(repr(name) for name in erased.graphs)
        say(f"Erased the node from {'graph' if len(erased.graphs) == 1 else 'graphs'} {names}.")
    if erased.dead_letters or erased.rejects:
        say(f"{erased.dead_letters:,} dead letters and {erased.rejects:,} rejects that mention it are gone, too.")
