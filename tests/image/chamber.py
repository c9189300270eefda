"""Commands in a root of their own: `chroot` in new namespaces of mounts and processes, which end with the command.

Nothing is mounted where others see it, so that nothing is left mounted, however a command ends.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_START_S = 10


@dataclass(frozen=True)
class Chamber:
    """How a root is entered.

    Attributes:
        root: the folder.
        mounts: path in the root → folder or file that is seen there, as it is.
        read_only: paths of `mounts` that cannot be written to.
        sealed: run as a container with no rights: the root cannot be written to but for `mounts`, /tmp is empty, there
            is no network but the loopback of its own, nor any capability.
        user: number of the user and the group, UID:GID.
        environment: all variables.
        folder: the working directory.
    """

    root: Path
    mounts: Mapping[str, Path] = field(default_factory=dict)
    read_only: frozenset[str] = frozenset()
    sealed: bool = False
    user: str = "0:0"
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command as it is called from within the namespaces."""
        uid, _, gid = self.user.partition(":")
        drop = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] if self.sealed else []
        who = ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", *drop]
        path = f"PATH={self.environment.get('PATH', '')}"
        return ["chroot", str(self.root), *who, "/usr/bin/env", f"--chdir={self.folder}", path, *command]

    def variables(self) -> dict[str, str]:
        """Return the variables of the call: the command's, but for the path by which tools are found out here."""
        return {**self.environment, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def _script(self) -> str:
        """Return the commands that lay out the mounts, and give way to those that follow as arguments."""
        root = shlex.quote(str(self.root))
        lines = ["set -eu", f"mount --bind {root} {root}"]
        for path, source in self.mounts.items():
            target = shlex.quote(f"{self.root}{path}")
            lines.append(f"mount --bind {shlex.quote(str(source))} {target}")
            if path in self.read_only:
                lines.append(f"mount -o remount,bind,ro {target}")
        if self.sealed:
            lines += [f"mount -o remount,bind,ro {root}", "ip link set lo up"]
            lines.append(f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp")
        lines += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"]
        for device in _DEVICES:
            lines += [f": > {root}/dev/{device}", f"mount --bind /dev/{device} {root}/dev/{device}"]
        lines += [f"mkdir {root}/dev/shm", f"mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm"]
        lines += [f"ln -s /proc/self/fd {root}/dev/fd", 'exec "$@"']
        return "\n".join(lines)

    def call(self, command: Sequence[str]) -> list[str]:
        """Return the command as it is called from here; it is the first process in there, and ends with its caller."""
        spaces = ["--mount", "--pid", "--ipc", *(["--net", "--uts"] if self.sealed else [])]
        return [
            *("unshare", *spaces, "--fork", "--kill-child=KILL"),
            *("sh", "-c", self._script(), "sh", *self.inside(command)),
        ]

    def run(self, command: Sequence[str], *, timeout_s: float) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; what it prints on either stream is in `stdout`."""
        return subprocess.run(
            self.call(command), env=self.variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip


class Running:
    """A command that goes on in a chamber, beside which others can be run; a context manager that ends it."""

    def __init__(self, chamber: Chamber, command: Sequence[str], log: Path) -> None:
        """Start the command; what it prints goes to `log`."""
        self._chamber = chamber
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                chamber.call(command), env=chamber.variables(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._log = log

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        # Dying, unshare takes the first process in there with it, and that one all others.
        self._process.kill()
        self._process.wait()

    def _first(self) -> int:
        """Return the number that the first process in there has out here, once all is mounted and it is in its root.

        Raises:
            ChildProcessError: the command has ended.
        """
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                for number in children.read_text().split():
                    if Path(f"/proc/{number}/root").samefile(self._chamber.root):
                        return int(number)
            time.sleep(0.01)
        raise ChildProcessError(f"the command has ended:\n{self._log.read_text(errors='replace')}")

    def run(self, command: Sequence[str], *, timeout_s: float) -> "subprocess.CompletedProcess[str]":
        """Run another command in there, as `docker exec` does."""
        enter = ["nsenter", f"--target={self._first()}", "--mount", "--pid", "--ipc", "--net", "--uts"]
        return subprocess.run(
            [*enter, *self._chamber.inside(command)], env=self._chamber.variables(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s,
            check=False,
        )  # fmt: skip

    def stop(self, *, timeout_s: float) -> int:
        """Ask the first process to end, as `docker stop` does, and return its exit status."""
        subprocess.run(["kill", "-TERM", str(self._first())], check=True)
        return self._process.wait(timeout_s)
