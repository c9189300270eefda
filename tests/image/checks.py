"""What must hold of an image, whoever built it: each check runs it as a container, and fails by AssertionError."""

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.image.chamber import Chamber, Running
from tests.image.replay import Replay

COMMAND_TIMEOUT_S = 120
# What the command line documents for an end in order by SIGTERM. The first process of a container dies of no signal
# that it does not handle: this is no kill.
TERMINATED = 143
STOP_TIMEOUT_S = 30
_COMPILERS = re.compile(r"(.*-)?(cc|c\+\+|gcc|g\+\+|clang|cpp|ld|as)(-[\d.]+)?")
# A fortnight of a network with a daily rhythm, as a program that the image runs itself.
_EVENTS = """
import json
for hour in range(336):
    for event in range(3 + hour % 24 // 4):
        moment = f"2026-03-{1 + hour // 24:02d}T{hour % 24:02d}:{event:02d}:00Z"
        print(json.dumps({"src": f"u{(hour * 7 + event) % 23}", "dst": f"u{(hour + event * 5) % 19}", "ts": moment}))
"""
_ASK = """
import json, os, sys, time, urllib.error, urllib.request
def get(path):
    asked = urllib.request.Request("http://127.0.0.1:8000" + path)
    asked.add_header("Authorization", "Bearer " + os.environ["KEY"])
    return json.load(urllib.request.urlopen(asked, timeout=60))
for attempt in range(300):
    try:
        get("/readyz")
        break
    except urllib.error.HTTPError as error:
        last = error.read().decode()
        time.sleep(0.2)
else:
    sys.exit("never ready: " + last)
print(json.dumps(get("/v1/graphs/town/forecast?horizon=3")))
"""


def _ran(container: Chamber, *command: str) -> str:
    done = container.run(command, timeout_s=COMMAND_TIMEOUT_S)
    assert done.returncode == 0, f"{' '.join(command)} ends with {done.returncode}:\n{done.stdout}"
    return done.stdout


def the_machine_is_examined(replay: Replay, volume: Path) -> None:
    """`doctor` finds nothing broken, and the compiled parts."""
    container, entry = replay.container(volume), replay.image.entrypoint
    said = _ran(container, *entry, "doctor")
    assert re.search(r"ok +torch +\d", said), said
    assert re.search(r"kernels +cpu: the fastest", said), f"the kernels of the CPU are not in the image:\n{said}"
    assert re.search(r"ok +decoder +compiled", said), f"the decoder of events is not compiled:\n{said}"
    assert re.search(r"\d", _ran(container, *entry, "--version"))


def a_log_becomes_a_forecast(replay: Replay, volume: Path) -> None:
    """Events come into a store of the volume, and the model that is in the package forecasts from them."""
    container, entry = replay.container(volume), replay.image.entrypoint
    _ran(container, "sh", "-c", 'python -c "$0" > events.ndjson', _EVENTS)
    _ran(container, *entry, "ingest", "events.ndjson", "--graph", "town", "--step", "1h")
    said = _ran(container, *entry, "forecast", "town", "--horizon", "24", "--format", "json")
    assert '"events"' in said, said
    assert (volume / ".graphtide").stat().st_uid == 10001


def the_default_command_answers_and_is_healthy(replay: Replay, volume: Path) -> None:
    """The service of the default command answers the image's own question for its health, and a caller with a key."""
    container, image = replay.container(volume), replay.image
    refused = container.run([*image.entrypoint, *image.command], timeout_s=COMMAND_TIMEOUT_S)
    assert refused.returncode != 0, "without a key it must not listen beyond its container"
    assert "key" in refused.stdout, refused.stdout
    key = re.search(
        r"gt_\S+|\b[\w-]{30,}\b", _ran(container, *image.entrypoint, "keys", "create", "me", "--graph", "*")
    )
    assert key, "no key was printed"
    log = volume.parent / f"{volume.name}.log"
    with Running(container, [*image.entrypoint, *image.command], log) as service:
        deadline = time.monotonic() + float(image.healthcheck_flags["start-period"].removesuffix("s"))
        while (asked := service.run(image.healthcheck, timeout_s=COMMAND_TIMEOUT_S)).returncode:
            assert time.monotonic() < deadline, f"not healthy in its time:\n{asked.stdout}{log.read_text()}"
            time.sleep(0.2)
        answer = service.run(["env", f"KEY={key[0]}", "python", "-c", _ASK], timeout_s=COMMAND_TIMEOUT_S)
        assert answer.returncode == 0, answer.stdout + log.read_text()
        assert json.loads(answer.stdout)["graph"] == "town"
        status = service.stop(timeout_s=STOP_TIMEOUT_S)
        assert status == TERMINATED, f"stopped, it ends with {status}:\n{log.read_text()}"
    assert key[0] not in log.read_text()


def the_bill_of_materials_names_what_is_inside(replay: Replay, volume: Path) -> None:
    """It is CycloneDX, where the label says, and holds each installed distribution with its version."""
    image = replay.image
    bill = json.loads(image.path(image.labels["graphtide.sbom"]).read_text())
    assert bill["bomFormat"] == "CycloneDX"
    named = {one["name"].lower().replace("_", "-"): one["version"] for one in bill["components"]}
    assert {"torch", "numpy", "graphtide"} <= set(named), sorted(named)
    listed = "import importlib.metadata as m; print(*{f'{d.name}=={d.version}' for d in m.distributions()})"
    for one in _ran(replay.container(volume), "python", "-c", listed).split():
        name, _, version = one.lower().replace("_", "-").partition("==")
        if name not in ("pip", "setuptools"):
            assert named.get(name) == version, f"{one} is not in the bill of materials"


def its_user_can_change_nothing(replay: Replay, volume: Path) -> None:
    """No file of the program may be written by its user, by its rights as little as by the read-only root."""
    image = replay.image
    uid, gid = (int(part) for part in image.user.split(":"))
    assert uid == gid == 10001
    for folder, folders, files in os.walk(image.path("/opt/graphtide")):
        for name in (*folders, *files):
            held = (Path(folder) / name).lstat()
            if stat.S_ISLNK(held.st_mode):
                continue
            assert held.st_uid != uid and not held.st_mode & stat.S_IWOTH, Path(folder) / name
            assert held.st_gid != gid or not held.st_mode & stat.S_IWGRP, Path(folder) / name
    container = replay.container(volume)
    for path, writable in (
        ("/data", True),
        ("/tmp", True),
        ("/", False),
        ("/run/graphtide", False),
        ("/opt/graphtide", False),
    ):
        tried = container.run(["touch", f"{path}/tried"], timeout_s=COMMAND_TIMEOUT_S)
        assert (tried.returncode == 0) == writable, (path, tried.stdout)
    assert "CapEff:\t0000000000000000" in _ran(container, "cat", "/proc/self/status")


def no_compiler_is_left(replay: Replay, volume: Path) -> None:
    """The last stage has no compiler, assembler or linker, nor what the build left behind."""
    root = replay.image.root
    folders = [root / part for part in ("bin", "usr/bin", "usr/local/bin", "opt/graphtide/bin")]
    found = [file for folder in folders for file in folder.iterdir() if _COMPILERS.fullmatch(file.name)]
    assert not found, found
    assert not list(root.glob("source")) + list(root.glob("wheels")) + list(root.glob("opt/sbom"))
    listed = subprocess.run(
        ["chroot", str(root), "dpkg-query", "-W", "-f", "${Package}\n"], capture_output=True, text=True, check=True
    )
    assert not {"g++", "gcc", "binutils", "make"} & set(listed.stdout.split())


Check = Callable[[Replay, Path], None]
# In this order: the service answers from what the ones before it have left in the volume.
CHECKS: tuple[Check, ...] = (
    the_machine_is_examined,
    a_log_becomes_a_forecast,
    the_default_command_answers_and_is_healthy,
    the_bill_of_materials_names_what_is_inside,
    its_user_can_change_nothing,
    no_compiler_is_left,
)
