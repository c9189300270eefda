"""PostgreSQL, run by an unprivileged user where the tests run as root, for it refuses to run as root."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from forecasting.bench.servers.base import MissingServerError, Server, ServerFailedError, as_user, servers_folder

SUPERUSER = "graphtide"
UNPRIVILEGED = ("postgres", "nobody")
# Where Debian and Red Hat put the programs, which are not on the PATH there.
INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


class PostgresServer(Server):
    """One PostgreSQL server with the superuser `graphtide`, who needs no password."""

    name: ClassVar[str] = "postgres"
    # Fast shutdown; SIGTERM would wait for the clients to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.user = _unprivileged_user() if os.geteuid() == 0 else None
        # The folders of tests are closed to other users.
        self._closed_to_user = self.user is not None

    @property
    def url(self) -> str:
        """The address of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Copy the data folder that initdb has made once to a place that the server's user can reach."""
        template = _template(self.user)
        place = None if self._closed_to_user else self.folder
        self.working_folder = Path(tempfile.mkdtemp(prefix="graphtide-postgres-", dir=place))
        shutil.copytree(template, self.working_folder / "data")
        if self.user is not None:
            for path in (self.working_folder, *self.working_folder.rglob("*")):
                shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)

    def command(self) -> list[str]:
        """Return the command. A kill of the process loses no page that the system holds: fsync would only cost time."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "64MB",
            "max_connections": "50",
            # Inside the data folder, so that a kill leaves nothing elsewhere.
            "dynamic_shared_memory_type": "mmap",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(_program("postgres")), "-D", f"{self.working_folder}/data", *options]

    def answers(self, timeout_s: float) -> bool:
        """Run a statement."""
        import psycopg  # noqa: PLC0415 - not needed to stop a server

        try:
            with psycopg.connect(self.url, connect_timeout=max(2, round(timeout_s))) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def create_database(self) -> str:
        """Make an empty database with a name of its own and return its address."""
        database = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {database}")
        return self.url_of(database)

    def drop_database(self, url: str) -> None:
        """Delete a database, whoever is still connected to it."""
        self._execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def discard(self) -> None:
        """Stop the server for good and delete its data."""
        super().discard()
        if self.working_folder is not None:
            shutil.rmtree(self.working_folder)
            self.working_folder, self._prepared = None, False

    def _execute(self, statement: str) -> None:
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


def _unprivileged_user() -> str:
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServerError(f"postgres does not run as root, and this system has no user {' or '.join(UNPRIVILEGED)}")


def _program(name: str) -> Path:
    """Return a program of the newest installed version."""
    on_path = shutil.which(name)
    found = (
        [Path(on_path)] if on_path else [path for place in INSTALLED for path in Path("/").glob(f"{place[1:]}/{name}")]
    )
    if not found:
        raise MissingServerError(
            f"there is no PostgreSQL server on the PATH or in {' or '.join(INSTALLED)}; run .ci/servers"
        )
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path.parent))])


def _template(user: str | None) -> Path:
    """Return a data folder as initdb makes it, kept for the next time beside the other servers."""
    initdb = _program("initdb")
    version = subprocess.run([initdb, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    kept = servers_folder() / f"postgres-{version}-{SUPERUSER}"
    if kept.is_dir():
        return kept
    # The cache lies in a home that the server's user may not read: made elsewhere, copied, and renamed when whole.
    with tempfile.TemporaryDirectory(prefix="graphtide-initdb-") as made:
        if user is not None:
            shutil.chown(made, user)
        options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        command = [str(initdb), "-D", f"{made}/data", *options]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, **as_user(user))
        if done.returncode != 0:
            raise ServerFailedError(f"initdb failed:\n{done.stdout}{done.stderr}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="postgres.part.", dir=kept.parent))
        try:
            shutil.copytree(f"{made}/data", part / "data")
            with suppress(OSError):  # another run was quicker
                (part / "data").rename(kept)
        finally:
            shutil.rmtree(part)
    return kept
