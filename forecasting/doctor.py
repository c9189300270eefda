"""What this machine has for Graphtide, what is lost without it, and what to do: one finding a thing looked at."""

import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from forecasting.bench.processor import processor
from infra.configuration import LoadedSettings
from infra.cores import allowed_cores
from infra.errors import GraphtideError
from infra.settings import DataSettings, InfluxDBSettings

# The WAL-reset bug, https://sqlite.org/wal.html: a checkpoint that races another connection's commit loses pages.
SQLITE_WAL_RESET_FIXED = (3, 51, 3)
# What the kernels and torch make use of, by the names of /proc/cpuinfo.
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")
COMPILERS = ("c++", "g++", "clang++")
SCARCE_DISK_BYTES = 1 << 30


class Status(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    NOTE = "note"  # something is absent that is not needed
    WARN = "warn"  # it works, with a risk
    FAIL = "fail"  # a command will fail


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, and what to do if that is not enough."""

    name: str
    status: Status
    found: str
    advice: str = ""


def examine(settings: LoadedSettings) -> list[Finding]:
    """Return the findings, in the order in which they are shown."""
    return [
        Finding("graphtide", Status.OK, version("graphtide")),
        Finding("python", Status.OK, f"{platform.python_version()} on {platform.platform()}"),
        Finding("settings", Status.OK, str(settings.file)),
        _cpu(),
        *_torch(),
        _compiler(),
        *_kernels(),
        _decoder(),
        _sqlite(),
        _store(settings.values.store.url, settings.values.influxdb),
        _service(settings.values.api.service_db),
        *_checkpoints(settings.values.models.directory),
        _data(settings.values.data),
        _disk(),
    ]


def _cpu() -> Finding:
    flags = processor().flags
    present = [name for name in CPU_FEATURES if name in flags]
    return Finding(
        "cpu",
        Status.OK,
        f"{platform.machine()}, {allowed_cores()} usable cores, {' '.join(present) or 'no vector features known'}",
    )


def _torch() -> Iterator[Finding]:
    try:
        import torch  # noqa: PLC0415 - takes a second, and doctor must report its absence
    except ImportError as error:
        yield Finding(
            "torch", Status.FAIL, f"cannot be imported: {error}", "install graphtide again: pip install graphtide"
        )
        return
    yield Finding("torch", Status.OK, f"{torch.__version__}, {torch.get_num_threads()} threads")
    advice = "not needed: training and forecasting run on the CPU"
    try:
        if torch.cuda.is_available():
            names = sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())})
            yield Finding("gpu", Status.OK, f"{torch.cuda.device_count()} x {', '.join(names)}")
        else:
            yield Finding("gpu", Status.NOTE, "none that torch can use", advice)
    # Of the driver, where another process holds the GPU for itself or it has failed.
    except (OSError, RuntimeError) as error:
        yield Finding("gpu", Status.WARN, f"one that cannot be used: {str(error).partition(chr(10))[0]}", advice)


def _compiler() -> Finding:
    for name in COMPILERS:
        path = shutil.which(name)
        if path:
            return Finding("compiler", Status.OK, path)
    return Finding("compiler", Status.NOTE, "no C++ compiler", "not needed, but our C++ parts need one to be built")


def _kernels() -> Iterator[Finding]:
    """Say of every backend of the model whether it is used, and why or why not."""
    try:
        from models.mamba2.kernels.registry import explain  # noqa: PLC0415 - imports torch
    except ImportError:
        # Said of torch already.
        return
    backends = explain()
    for backend in backends:
        status = Status.OK if backend.chosen else Status.NOTE
        if backend.name == "cpu" and backend.reason.startswith("unavailable"):
            status = Status.WARN
        if backend.is_refused:
            # No other backend is taken in its place: `serve` and every forecast refuse.
            status = Status.FAIL
        yield Finding("kernels", status, f"{backend.name}: {backend.reason}")
        if backend.name == "cpu" and backend.chosen:
            from models.mamba2.kernels.cpu.backend import CpuBackend  # noqa: PLC0415 - imports torch

            yield Finding("threads", Status.OK, CpuBackend().threads())
    if not any(backend.chosen or backend.is_refused for backend in backends):
        named = os.environ.get("GRAPHTIDE_BACKEND")
        yield Finding("kernels", Status.FAIL, f"GRAPHTIDE_BACKEND={named} cannot be used", "unset it, or name another")


def _decoder() -> Finding:
    """Say whether ingestion has its compiled part."""
    from stream.native import unavailable  # noqa: PLC0415 - a broken installation must not stop doctor

    reason = unavailable()
    if reason is None:
        return Finding("decoder", Status.OK, "compiled")
    return Finding(
        "decoder",
        Status.WARN,
        f"its compiled part is missing ({reason}), so records are read more slowly",
        "install a C++17 compiler, then install graphtide again with `pip install --force-reinstall --no-deps`",
    )


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= SQLITE_WAL_RESET_FIXED:
        return Finding("sqlite", Status.OK, found)
    fixed = ".".join(map(str, SQLITE_WAL_RESET_FIXED))
    return Finding(
        "sqlite",
        Status.WARN,
        f"{found}, older than {fixed}: a checkpoint that races another connection's commit can corrupt the store",
        "run one ingest process a store (readers are safe), or use a Python built with a newer SQLite",
    )


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    found = f"{free_bytes / 1e9:.1f} GB free in {Path.cwd()}"
    if free_bytes < SCARCE_DISK_BYTES:
        return Finding("disk", Status.WARN, found, "make room before ingesting a large log")
    return Finding("disk", Status.OK, found)


def _store(url: str, influxdb: InfluxDBSettings) -> Finding:
    from stream.store import open_reader  # noqa: PLC0415 - a broken installation must not stop doctor
    from stream.store.influx.address import is_influx_url  # noqa: PLC0415
    from stream.store.postgres_server import SCHEMES, address  # noqa: PLC0415
    from stream.store.sqlite_file import path_of_url  # noqa: PLC0415

    try:
        is_postgres = url.startswith(SCHEMES)
        if not is_influx_url(url) and not is_postgres and not path_of_url(url).exists():
            return Finding("store", Status.NOTE, f"none at {url} yet", "ingest events first: graphtide ingest")
        with open_reader(url, influxdb) as reader:
            graphs = reader.graphs()
    except GraphtideError as error:
        return Finding("store", Status.FAIL, error.message, error.fix or "")
    snapshots = sum(graph.snapshots for graph in graphs)
    name = address(url) if is_postgres else url
    return Finding("store", Status.OK, f"{name}: {len(graphs)} graphs, {snapshots:,} snapshots")


def _service(place: Path | str) -> Finding:
    try:
        from forecasting.service_file import ServiceFile, name_of  # noqa: PLC0415

        if isinstance(place, Path):
            is_there = place.exists()
        else:
            from forecasting.bookkeeping.postgres_server import has_books  # noqa: PLC0415

            is_there = has_books(place)
        if not is_there:
            return Finding("service", Status.NOTE, f"no keys or jobs at {name_of(place)} yet")
        with ServiceFile(place) as file:
            ((keys,),) = file.rows("SELECT count(*) FROM keys WHERE revoked_us IS NULL")
            waiting = file.waiting("jobs")
    except GraphtideError as error:
        return Finding("service", Status.FAIL, error.message, error.fix or "")
    return Finding("service", Status.OK, f"{file.name}: {keys} keys, {waiting.queued + waiting.running} active jobs")


def _checkpoints(directory: Path) -> Iterator[Finding]:
    folders = sorted(card.parent for card in directory.glob("*/card.json"))
    if not folders:
        yield Finding(
            "models",
            Status.NOTE,
            f"none in {directory}",
            "the general model answers; graphtide train makes one for a graph",
        )
        return
    from models.checkpoint import read_card  # noqa: PLC0415 - imports torch

    names = []
    for folder in folders:
        try:
            card = read_card(folder) or {}
            form = card.get("compression", {}).get("method")
            names.append(f"{folder.name} ({form})" if form else folder.name)
        except GraphtideError as error:
            yield Finding("models", Status.WARN, f"{folder}: {error.message}", error.fix or "")
    if names:
        yield Finding("models", Status.OK, f"{directory}: {', '.join(names)}")


def _data(settings: DataSettings) -> Finding:
    from stream.sources.datasets import DATASETS  # noqa: PLC0415

    names = [
        info.name
        for info in DATASETS.values()
        if any((folder / info.name / info.file).is_file() for folder in settings.folders())
    ]
    if not names:
        found = f"no public data set in {settings.directory} or {settings.cache}"
        return Finding("data", Status.NOTE, found, "not needed: demo simulates a network; see: graphtide datasets")
    return Finding("data", Status.OK, ", ".join(names))
