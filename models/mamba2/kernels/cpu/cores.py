"""How many cores this process may keep busy: its affinity, and the CPU quota of its control groups."""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from infra.cores import allowed_cores

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(control_groups: Path = _CONTROL_GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return how many whole cores there are for this process, at least 1.

    Args:
        control_groups: where the control groups are mounted.
        membership: the file that names those of this process, of version 1 and 2.
    """
    # A part of a core carries no thread of its own: the kernel would stop all threads until the next period.
    quotas = (math.floor(quota) for quota in _quotas(control_groups, membership))
    return max(1, min([allowed_cores(), *quotas]))


def _quotas(control_groups: Path, membership: Path) -> Iterator[float]:
    """Yield the quota in cores of every control group around this process that has one."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if not controllers:
            # Version 2 is mounted one deeper where version 1 is in use too.
            for mount in (control_groups, control_groups / "unified"):
                for group in _around(mount, name):
                    yield from _cores(_read(group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in {control_groups / "cpu", control_groups / controllers}:
                for group in _around(mount, name):
                    parts = [_read(group / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period")]
                    yield from _cores(parts)


def _around(mount: Path, name: str) -> Iterator[Path]:
    """Yield a control group and those that hold it.

    In a container the name may be that of another view of the tree: only the root is then found, and that is its own.
    """
    group = PurePosixPath(name.lstrip("/"))
    if ".." not in group.parts:
        for inner in (group, *group.parents):
            yield mount / inner
    else:
        yield mount


def _cores(quota_and_period: list[str]) -> Iterator[float]:
    """Yield the cores of a quota, or nothing where there is none: "max" in version 2, -1 in version 1."""
    if len(quota_and_period) == 2 and all(part.isdecimal() for part in quota_and_period):
        quota, period = map(int, quota_and_period)
        if period > 0:
            yield quota / period


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
