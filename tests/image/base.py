"""A clean Debian with Python, in the place of the official image of Python; made once, kept in this user's cache."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from forecasting.bench.servers.base import servers_folder

# What the official slim image has beside the minimal system, as far as Debian packages it: Python with its headers, as
# that image has them too, certificates, names of services, time zones.
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-dev", "python3-venv", "tzdata")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_OFFICIAL = re.compile(r"python:[\d.]+-slim-([a-z]+)")
_TOOLS = ("debootstrap", "unshare", "nsenter", "setpriv", "chroot", "mount", "ip", "apt-get")


class MissingToolError(Exception):
    """This machine cannot replay a build; the text says what it lacks."""


def check() -> None:
    """Look whether this machine can replay a build.

    Raises:
        MissingToolError: it lacks a program or a right.
    """
    absent = [tool for tool in _TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if absent:
        raise MissingToolError(f"{', '.join(absent)} is not on the PATH; run .ci/servers on Debian, as root")
    if os.geteuid() != 0:
        raise MissingToolError("a clean root can be entered by root alone")
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        raise MissingToolError(f"this machine grants no namespaces: {tried.stderr.strip()}")


def release_of(image: str) -> str:
    """Return the release of Debian that an official image of Python stands on.

    Raises:
        MissingToolError: it is another image.
    """
    found = _OFFICIAL.fullmatch(image)
    if found is None:
        raise MissingToolError(f"{image} is no image that can be made here; expected python:<version>-slim-<release>")
    return found[1]


def clean_root(release: str) -> Path:
    """Return the folder of a clean root of this release; it must not be changed, only copied.

    Raises:
        MissingToolError: apt knows no mirror of Debian, or debootstrap fails.
    """
    cache = servers_folder().parent / "roots"
    kept = cache / f"{release}-{'-'.join(PACKAGES)}"
    if kept.is_dir():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"{release}.part.") as folder:
        part = Path(folder) / "root"
        # In mounts of its own: what it mounts in there is gone with it, also where it fails.
        call = [
            "unshare",
            "--mount",
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            release,
            str(part),
            mirror(),
        ]
        made = subprocess.run(call, capture_output=True, text=True, check=False)
        if made.returncode:
            raise MissingToolError(f"debootstrap fails:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
        (part / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        (part / "usr/local/bin/python3").symlink_to("/usr/bin/python3")
        (part / "etc/hosts").write_text("127.0.0.1 localhost\n")
        part.chmod(0o755)
        if not kept.is_dir():  # of two at once the first to finish wins
            part.rename(kept)
    return kept


def mirror() -> str:
    """Return the address that this machine's apt takes Debian from.

    Raises:
        MissingToolError: it takes it from nowhere.
    """
    call = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(call, capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        origin, component, address = line.split("|")
        if (origin, component) == ("Debian", "main") and "security" not in address:
            return address
    raise MissingToolError("apt-get has no index of Debian's packages here; run apt-get update")
