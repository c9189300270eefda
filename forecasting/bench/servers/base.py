"""What all servers share: where they are installed, free ports, processes, readiness, a sure end."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

LOG_TAIL_LINES = 30
POLL_S = 0.05
# Kills the server's process group when this end of the pipe closes without a word, as it does when this process
# is killed and can clean up nothing itself.
WATCH = 'read -r word || kill -KILL "-$1"'


class MissingServerError(Exception):
    """What a server needs is not installed; the text says what and how to get it."""


class ServerFailedError(Exception):
    """A server ended or did not get ready in time; the text holds the end of its log."""


def servers_folder() -> Path:
    """Return the folder that `.ci/servers` fills."""
    named = os.environ.get("GRAPHTIDE_SERVERS_DIR")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "graphtide" / "servers"


def find_program(name: str, *, server: str) -> Path:
    """Return a program of the search path.

    Raises MissingServerError: it is not there.
    """
    found = shutil.which(name)
    if found is None:
        raise MissingServerError(f"{server} needs {name}, which is not on the PATH; run .ci/servers")
    return Path(found)


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a command as `user`, or as this user for None."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, outside the range that clients are given.

    A server that is down between kill and restart would else lose its port to an outgoing connection, and a client that
    tries to connect to a closed port of that range can even get connected to itself.
    """
    with suppress(OSError, ValueError):
        first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        for _ in range(100):
            port = random.SystemRandom().randrange(10_000, max(first_of_clients, 10_001))
            if _bindable(port):
                return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Server(ABC):
    """One server with a data folder and a port of its own, both kept over `stop`, `kill` and `restart`."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # Whom the server runs as and where it starts, where these are not those of the caller.
    user: str | None = None
    working_folder: Path | None = None
    start_timeout_s: ClassVar[float] = 60.0
    stop_timeout_s: ClassVar[float] = 20.0

    def __init__(self, folder: Path) -> None:
        """Prepare a server that keeps its data, configuration and `server.log` in `folder`; nothing is started yet."""
        self.folder = folder
        self.port = free_port()
        self.log_path = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._prepared = False

    @abstractmethod
    def prepare(self) -> None:
        """Lay out the data folder, once, before the first start; raise MissingServerError for what is not installed."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, as the process that it starts as."""

    @abstractmethod
    def answers(self, timeout_s: float) -> bool:
        """Tell whether the server answers a request of its own protocol within `timeout_s`."""

    def environment(self) -> dict[str, str]:
        """Return the environment of the server's process."""
        return dict(os.environ)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process lives, be it paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises MissingServerError: it is not installed. ServerFailedError: it ended, or did not answer in time.
        """
        assert not self.running, f"{self.name} is running already"
        if not _bindable(self.port):
            # The readiness of what listens there must not be taken for this server's.
            raise ServerFailedError(f"{self.name} cannot start: something listens on 127.0.0.1:{self.port} already")
        if not self._prepared:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.prepare()
            self._prepared = True
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.working_folder or self.folder,
                start_new_session=True,
                **as_user(self.user),
            )
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", WATCH, "watch", str(self.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self.wait_until_ready(self.start_timeout_s)
        except BaseException:
            self.kill()
            raise
        return self

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server answers; raise ServerFailedError if it ends, or does not within `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        while not self.answers(timeout_s=2.0):
            if not self.running:
                raise ServerFailedError(f"{self.name} ended by itself, log {self.log_path}:\n{self.log_tail()}")
            if time.monotonic() > end_s:
                raise ServerFailedError(
                    f"{self.name} did not answer within {timeout_s:g} s, log {self.log_path}:\n{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the server the way its makers mean it to be ended; kill what is left after `stop_timeout_s`."""
        if self._process is not None and self.running:
            self.resume()
            family = self._family()
            self._process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_timeout_s)
                # Some end without their children, whom nobody could find then.
                for member in family[1:]:
                    with suppress(psutil.NoSuchProcess):
                        member.kill()
        self.kill()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would, and wait until all its processes are gone."""
        if self._process is not None:
            family = self._family()
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            # The leader is reaped through its Popen, which would else never learn its exit status.
            self._process.wait()
            _, left = psutil.wait_procs(family[1:], timeout=10)
            assert not left, f"processes of {self.name} outlive SIGKILL: {left}"
        if self._watch is not None:
            self._watch.communicate(b"done\n")
        self._process = self._watch = None

    def pause(self) -> None:
        """Stop the server's processes without ending them (SIGSTOP): connections stay open, nothing answers.

        When this returns they have stopped.
        """
        assert self.running, f"{self.name} is not running"
        os.kill(self.pid, signal.SIGSTOP)
        # This waits for all threads; WNOWAIT leaves the news of an exit to Popen.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        # The leader came first: one that has stopped starts no further process.
        for member in self._family()[1:]:
            with suppress(psutil.NoSuchProcess):
                member.suspend()
                while member.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                    time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT); do nothing to one that is not paused."""
        for member in reversed(self._family()):
            with suppress(psutil.NoSuchProcess):
                member.resume()

    def restart(self) -> Self:
        """Start again on the same port and data, after `stop` or `kill` or, if it still runs, after a `stop` here."""
        self.stop()
        return self.start()

    def heal(self) -> None:
        """Bring the server back to answering, whatever was done to it."""
        if self.running:
            self.resume()
            self.wait_until_ready(self.start_timeout_s)
        else:
            self.restart()

    def discard(self) -> None:
        """Stop the server for good and delete what it keeps outside its folder; the folder with the log stays."""
        self.stop()

    def log_tail(self) -> str:
        """Return the end of the log."""
        if not self.log_path.is_file():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _family(self) -> list[psutil.Process]:
        """Return the server's process and all that descend from it: PostgreSQL's backends leave the process group."""
        if self._process is None:
            return []
        try:
            leader = psutil.Process(self._process.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.discard()
