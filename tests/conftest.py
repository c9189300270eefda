"""Fixtures that every part shares, and how tests treat what a machine may lack."""

import faulthandler
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar
from unittest.mock import patch

import pytest

# The parity suite of the kernels runs where there is nothing but torch, numpy and pytest: what else tests need is
# imported where it is used.
if TYPE_CHECKING:
    from forecasting.bench.servers.base import Server
    from tests.servers.postgres import PostgresServer

# Between the summary and the end of the process.
END_WITHIN_S = 120
# Many tests wait, for a server, a browser or the next second; a third worker would want more memory than time it saves.
MOST_WORKERS = 2

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:
    pass  # tests by property import it themselves, and fail
else:
    # How long an example or its drawing takes is the machine's affair: no test asserts on wall time.
    _UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("local", max_examples=50, **_UNTIMED)
    settings.register_profile("ci", max_examples=50, derandomize=True, **_UNTIMED)
    settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the whole suite between two workers, file by file, where pytest-xdist is at hand and `-n` is not given.

    A part that is named runs in one process: nothing is won there, and a debugger can be used.
    """
    names_a_part = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if names_a_part or hasattr(config, "workerinput") or not config.pluginmanager.has_plugin("xdist"):
        return
    options = config.option
    if options.numprocesses is None and not options.usepdb and not options.collectonly:
        cores = os.cpu_count() or 1
        options.numprocesses = min(MOST_WORKERS, cores)
        # On more threads than cores each would wait for others that do not run.
        os.environ.setdefault("OMP_NUM_THREADS", str(cores // options.numprocesses))
        # As collected: the slow files stand first, and none of them is left for the end.
        options.dist, options.loadscopereorder = "loadfile", False


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let no thread that a test left behind keep the run from ending: say where it stands, and end as failed.

    A worker waits for the others when it has nothing left to do; the run ends it.
    """
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(END_WITHIN_S, exit=True)


def lacking(name: str, why: str) -> NoReturn:
    """Skip a test for want of `name`; fail it instead where GRAPHTIDE_REQUIRE lists `name`."""
    if name in os.environ.get("GRAPHTIDE_REQUIRE", "").split(","):
        pytest.fail(f"{name} is required here, but {why}")
    pytest.skip(why)


AnyServer = TypeVar("AnyServer", bound="Server")


def running_server(kind: type[AnyServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyServer]:
    """Yield a server of its own; one that is not installed skips the test, or fails it where it is required."""
    from forecasting.bench.servers.base import MissingServerError  # noqa: PLC0415

    try:
        server = kind(tmp_path_factory.mktemp(kind.name)).start()
    except MissingServerError as missing:
        lacking(kind.name, str(missing))
    try:
        yield server
    finally:
        server.discard()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PostgresServer]":
    """Return the PostgreSQL server of this run; tests that only want a database take `postgres_url`."""
    from tests.servers.postgres import PostgresServer  # noqa: PLC0415

    yield from running_server(PostgresServer, tmp_path_factory)


@pytest.fixture
def postgres_url(postgres_server: "PostgresServer") -> Iterator[str]:
    """Return the address of an empty database of a running PostgreSQL server."""
    url = postgres_server.create_database()
    yield url
    postgres_server.heal()
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def require() -> Callable[[str, bool, str], None]:
    """Return a check: `require("data", folder.is_dir(), "there is no folder")` skips or fails when it is False."""

    def check(name: str, present: bool, why: str) -> None:
        if not present:
            lacking(name, why)

    return check


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of the public data sets."""
    named = os.environ.get("GRAPHTIDE_DATA_DIR")
    if not named:
        lacking("data", "GRAPHTIDE_DATA_DIR is not set")
    folder = Path(named)
    if not folder.is_dir():
        lacking("data", f"GRAPHTIDE_DATA_DIR={named} is no folder")
    return folder


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Run a test in an empty working directory with no GRAPHTIDE_ variable; return the directory."""
    for name in list(os.environ):
        if name.upper().startswith("GRAPHTIDE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # The command line sets variables for the processes that it starts; they must not reach the tests after this one.
    with patch.dict(os.environ):
        yield tmp_path


@dataclass(frozen=True)
class Ran:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def graphtide(clean_environment: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Callable[..., Ran]]:
    """Return a function that runs the command line in this process, in an empty working directory."""
    from forecasting.cli import main  # noqa: PLC0415 - most tests do not need it

    def run(*arguments: object) -> Ran:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        # It has left them to end the process.
        for number, handler in before.items():
            signal.signal(number, handler)
        captured = capfdbinary.readouterr()
        return Ran(int(ended.value.code or 0), captured.out.decode(), captured.err.decode())

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
