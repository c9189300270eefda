"""`graphtide store project` and `graphtide store rebuild`: a store of record to InfluxDB and back."""

from typing import TYPE_CHECKING, Annotated

import typer

from forecasting.cli.call import Call, interruptible, say
from forecasting.cli.progress import progress
from forecasting.cli.store import StoreOption
from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.settings import Settings
    from stream.store.influx.address import InfluxAddress
    from stream.store.projector import ProjectorStatus

_NO_INFLUXDB = "[influxdb] url is empty: there is no InfluxDB to write to"
_SET_INFLUXDB = "set [influxdb] url, org and bucket, and the token as GRAPHTIDE_INFLUXDB__TOKEN"


def register(app: typer.Typer) -> None:
    """Add the commands of this file to those of `graphtide store`."""
    app.command()(project)
    app.command()(rebuild)


def project(
    ctx: typer.Context,
    store: StoreOption = None,
    write_all: Annotated[
        bool, typer.Option("--all", help="Write every snapshot again, over what another store wrote, too.")
    ] = False,
    off: Annotated[
        bool, typer.Option("--off", help="Write nothing, and forget what waits: no InfluxDB follows any more.")
    ] = False,
) -> None:
    """Write the snapshots of the store to the InfluxDB of the settings, now.

    From then on the store remembers what changes, and graphtide ingest writes it while it runs. This command is for
    a store that was filled before [influxdb] was set, and for what an outage left over. It waits through outages;
    stopped and run again it goes on where it was. No ingest may write the store meanwhile. Where the bucket has a graph
    of the same name that another store of record writes, the command ends with 1; with --all it takes the graph over.
    --off ends that; with [influxdb] url still set, the next ingest begins it again.

    Example: graphtide store project --store sqlite:///store.db
    """
    from stream.store import open_reader, open_writer  # noqa: PLC0415 - numpy is not needed for --help
    from stream.store.project import enable, make_projector, project_all  # noqa: PLC0415
    from stream.store.projector import PROJECTION  # noqa: PLC0415
    from stream.store.shown import shown_store  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    if off and write_all:
        raise UsageError("--off and --all exclude each other", fix="leave one out")
    projector = None if off else make_projector(settings.store.url, settings.influxdb, take_over=write_all)
    if projector is None and not off:
        raise UsageError(_NO_INFLUXDB, fix=_SET_INFLUXDB)
    # Opening for writing would make a store where there is none.
    open_reader(settings.store.url).close()
    if projector is None:
        with open_writer(settings.store.url) as writer, writer.transaction():
            writer.disable_projection(PROJECTION)
        say(f"{shown_store(settings.store.url)} no longer remembers what InfluxDB does not have.")
        return
    with (
        interruptible("What was written is kept; the same command goes on from there."),
        open_writer(settings.store.url) as writer,
        progress("Projecting") as report,
    ):
        with writer.transaction():
            if write_all:
                writer.disable_projection(PROJECTION)
            enable(writer, projector)
        with projector:
            trouble = ""

            def tell(status: "ProjectorStatus") -> None:
                nonlocal trouble
                if status.error and not status.refused and status.error != trouble:
                    say(f"{status.error}; trying again")
                trouble = status.error or ""
                report(status.written, status.written + status.waiting, "snapshots")

            status = project_all(writer, projector, tell)
    say(f"{status.written:,} snapshots written; InfluxDB has all that {shown_store(settings.store.url)} has.")


def rebuild(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="influxdb://HOST:PORT/ORG/BUCKET; else that of [influxdb]."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Restore the snapshots of a lost store from InfluxDB into a new one.

    Snapshots, their revisions and the counts of each graph come back: reads and forecasts are equal. Node names,
    edges, events of open steps and the positions of sources are not in InfluxDB. So a rebuilt graph takes no more
    events; to go on, ingest its whole log into another store, or into a graph of another name.

    Example: graphtide store rebuild --from influxdb://localhost:8086/org/bucket --store sqlite:///new.db
    """
    from stream.store import open_writer  # noqa: PLC0415 - numpy is not needed for --help
    from stream.store.influx.reader import InfluxSnapshots  # noqa: PLC0415
    from stream.store.rebuild import rebuild as restore  # noqa: PLC0415
    from stream.store.shown import shown_store  # noqa: PLC0415

    call: Call = ctx.obj
    settings = call.load({"store.url": ("--store", store)}).values
    address = _source_of(source, settings)
    done = 0
    with (
        interruptible("Nothing was restored."),
        InfluxSnapshots(address) as reader,
        progress("Restoring") as report,
    ):
        infos = {info.name: info for info in reader.graphs()}
        if not infos:
            raise UsageError(f"the {address.place} has no graph", fix="check [influxdb] or --from")
        total = sum(info.snapshots for info in infos.values())
        restored: dict[str, int] = {}

        def tell(graph: str, steps: int) -> None:
            restored[graph] = steps
            report(sum(restored.values()), total, "snapshots")

        with open_writer(settings.store.url) as writer:
            done = restore(reader, writer, address.store_url, tell)
    say(f"{total:,} snapshots of {done:,} graphs restored to {shown_store(settings.store.url)}.")
    say("These graphs can be read and forecast; they take no more events (see graphtide store rebuild --help).")


def _source_of(source: str | None, settings: "Settings") -> "InfluxAddress":
    from stream.store.influx.address import address_of_settings, address_of_url  # noqa: PLC0415

    address = address_of_settings(settings.influxdb) if source is None else address_of_url(source, settings.influxdb)
    if address is None:
        raise UsageError(
            "there is no InfluxDB to restore from", fix="give --from, or set [influxdb] url, org and bucket"
        )
    return address
