"""A page is printed whole or not at all, and whatever hinders it is told with its fix."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from forecasting.reports.pdf import PROGRAMS, PrintError, find_browser, print_page
from tests.conftest import lacking

PAGE = b"<!doctype html><title>t</title><p id=p>before</p><script>p.textContent = 'drawn'</script>"


def browser_that(folder: Path, does: str) -> str:
    """Return a program in the place of a browser; anyone may run it."""
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
        if parent.name.startswith("pytest-of"):
            break
    return str(path)


def test_chromium_prints_a_page() -> None:
    if not any(map(shutil.which, PROGRAMS)):
        lacking("browser", f"there is no {' or '.join(PROGRAMS)} on the PATH")
    found = print_page(PAGE, program="", timeout_s=120)
    assert found.startswith(b"%PDF-")
    assert b"%%EOF" in found[-32:]


def test_a_missing_browser_is_told_with_its_fix() -> None:
    with pytest.raises(PrintError, match="no-such-browser") as caught:
        find_browser("no-such-browser")
    assert caught.value.place == "[reports] browser"
    assert "install" in str(caught.value.fix)


def test_a_browser_that_fails_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PrintError, match="printed nothing: no sandbox") as caught:
        print_page(PAGE, program=browser_that(tmp_path, "echo 'no sandbox' >&2; exit 1"), timeout_s=20)
    assert "--headless" in str(caught.value.fix)


def test_a_browser_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    program = browser_that(tmp_path, "sleep 600 & sleep 600")
    with pytest.raises(PrintError, match="did not print within") as caught:
        print_page(PAGE, program=program, timeout_s=0.5)
    assert caught.value.place == "[reports] print_timeout_s"


def test_the_browser_gets_no_secret_and_no_way_out_of_its_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTIDE_INFLUXDB__TOKEN", "s3cret")
    told = tmp_path / "told"
    told.write_text("")
    told.chmod(0o666)
    with pytest.raises(PrintError):
        print_page(PAGE, program=browser_that(tmp_path, f'(env; echo "$@"; id -u) > "{told}"'), timeout_s=20)
    lines = told.read_text()
    assert "s3cret" not in lines
    assert "--no-sandbox" not in lines
    assert "MAP * ~NOTFOUND" in lines
    assert lines.splitlines()[-1] != "0"
