"""No package of the lock has a known vulnerability: an audit of requirements.lock, where advisories can be reached."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import lacking

LOCK = Path(__file__).parents[2] / "requirements.lock"
TIMEOUT_S = 600


def test_no_locked_package_has_a_known_vulnerability() -> None:
    if importlib.util.find_spec("pip_audit") is None:
        lacking("advisories", "pip-audit is not installed (the extra `dev`)")
    # Of OSV and not of PyPI: a mirror of PyPI that has no advisories makes every package look sound.
    call = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip"]
    call += ["--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off"]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if not ran.stdout.strip():
        lacking("advisories", "they cannot be read: " + ran.stderr.strip().splitlines()[-1][-200:])
    found = json.loads(ran.stdout)["dependencies"]
    assert len(found) > 100, "the lock was not read whole"
    assert [one["name"] for one in found if "skip_reason" in one] == []
    assert {one["name"]: [flaw["id"] for flaw in one["vulns"]] for one in found if one["vulns"]} == {}
