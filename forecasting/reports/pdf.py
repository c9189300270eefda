"""A report's page as a PDF, printed by an installed Chromium: the page draws its charts itself, so a browser has to.

The browser gets a folder of its own, finds no host, and is kept in its sandbox: where we run as root, as which Chromium
gives its sandbox up, it runs as `nobody`. Decision 7 says why.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from infra.errors import GraphtideError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_UNPRIVILEGED = "nobody"
# Of the page's own clock, which runs as fast as its scripts allow: charts are drawn long before.
_DRAWING_MS = 20_000
_PDF_MAGIC = b"%PDF-"


class PrintError(GraphtideError):
    """A page could not be printed."""


def find_browser(program: str) -> str:
    """Return the path of the browser that prints.

    Args:
        program: its name or path; empty for the first of `PROGRAMS` that is there.

    Raises:
        PrintError: there is none.
    """
    names = (program,) if program else PROGRAMS
    for name in names:
        if found := shutil.which(name):
            return found
    raise PrintError(
        f"there is no {' or '.join(names)} to print with",
        place="[reports] browser",
        fix="install Chromium (apt install chromium), or name a browser built on it; the HTML page needs none",
    )


def print_page(html: bytes, *, program: str, timeout_s: float) -> bytes:
    """Return a page of this package as a PDF.

    Args:
        html: the page; it needs nothing but itself.
        program: the browser, as of `find_browser`.
        timeout_s: seconds that it may take.

    Raises:
        PrintError: there is no browser, it failed, or it took too long.
    """
    browser = find_browser(program)
    with tempfile.TemporaryDirectory(prefix="graphtide-print-") as temporary:
        folder = Path(temporary)
        page, out = folder / "page.html", folder / "page.pdf"
        page.write_bytes(html)
        said = _run(_command(browser, folder, page, out), folder, timeout_s)
        content = out.read_bytes() if out.is_file() else b""
    if not content.startswith(_PDF_MAGIC):
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        raise PrintError(
            f"{browser} printed nothing: {last[:200]}",
            place="[reports] browser",
            fix=f"try it alone: {browser} --headless --print-to-pdf=a.pdf about:blank",
        )
    return content


def _command(browser: str, folder: Path, page: Path, out: Path) -> list[str]:
    return [
        browser,
        "--headless",
        "--disable-gpu",
        "--disable-extensions",
        "--no-first-run",
        "--no-default-browser-check",
        f"--user-data-dir={folder / 'profile'}",
        # The page asks for nothing; the browser itself finds nothing either.
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--no-pdf-header-footer",
        f"--virtual-time-budget={_DRAWING_MS}",
        f"--print-to-pdf={out}",
        page.as_uri(),
    ]


def _run(command: list[str], folder: Path, timeout_s: float) -> str:
    """Run the browser and return what it said; all of its processes are ended when it takes too long."""
    process: subprocess.Popen[bytes] = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LANG": "C.UTF-8"},
        start_new_session=True,
        **_as_nobody(folder),
    )
    try:
        _, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise PrintError(
            f"{command[0]} did not print within {timeout_s:g} s",
            place="[reports] print_timeout_s",
            fix="raise it, or try again when the machine has less to do",
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return said.decode(errors="replace")


def _as_nobody(folder: Path) -> dict[str, Any]:
    """Return whom the browser runs as, and give the folder with its page to them."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_UNPRIVILEGED)
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
