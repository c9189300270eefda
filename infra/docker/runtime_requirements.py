"""Print what an image installs: what the program needs to run, as the lock file pins it, with its hashes.

    python infra/docker/runtime_requirements.py --device cpu fast avro > requirements.txt

The lock file holds everything that development needs too. pip is asked what the program and the named extras need, and
the entries of those are printed. On a processor alone, torch and what it brings for CUDA are left out: the CPU build
lies in an index of its own. Reads nothing but the standard library, as it runs before anything is installed.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

_PIN = re.compile(r"([A-Za-z0-9._-]+)==")
# What the build of torch for CUDA brings, and torch itself.
_OF_CUDA = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)")


def normal(name: str) -> str:
    """Return the name of a distribution in the form of the lock file."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, list[str]]:
    """Return the entries of each distribution, one for each marker: version, marker and hashes."""
    entries: dict[str, list[str]] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        if found := _PIN.match(entry):
            entries.setdefault(normal(found.group(1)), []).append(entry)
    return entries


def direct(pyproject: str, extras: list[str]) -> list[str]:
    """Return the requirements of the program and of the extras.

    Raises:
        SystemExit: there is no such extra.
    """
    project = tomllib.loads(pyproject)["project"]
    optional = project["optional-dependencies"]
    unknown = sorted(set(extras) - set(optional))
    if unknown:
        sys.exit(f"pyproject.toml has no extra {unknown[0]!r}; it has {', '.join(optional)}")
    return [*project["dependencies"], *(one for extra in extras for one in optional[extra])]


def resolved(requirements: list[str], entries: dict[str, list[str]]) -> list[str]:
    """Return the names of the distributions that the requirements need, at the pinned versions, as pip finds them.

    Raises:
        SystemExit: pip finds no such set.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        pinned = [entry.partition("\\")[0].strip() for of_one in entries.values() for entry in of_one]
        constraints.write_text("\n".join(pinned))
        call = ["install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
        call += ["--constraint", str(constraints), "--report", str(report), *requirements]
        if subprocess.run([sys.executable, "-m", "pip", *call], check=False).returncode:
            sys.exit("pip cannot install what pyproject.toml names at the versions of the lock file; see above")
        found = json.loads(report.read_text())["install"]
    return sorted(normal(one["metadata"]["name"]) for one in found)


def main() -> None:
    """Print the requirements.

    Raises:
        SystemExit: the lock file lacks one of them.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--folder", type=Path, default=Path(), help="where pyproject.toml and requirements.lock are")
    arguments = parser.parse_args()
    entries = pins((arguments.folder / "requirements.lock").read_text())
    requirements = direct((arguments.folder / "pyproject.toml").read_text(), arguments.extras)
    names = resolved(requirements, entries)
    if arguments.device == "cpu":
        names = [name for name in names if not _OF_CUDA.fullmatch(name)]
    lacking = [name for name in names if name not in entries]
    if lacking:
        sys.exit(f"requirements.lock lacks {', '.join(lacking)}: write it anew, see CONTRIBUTING.md")
    sys.stdout.write("".join(entry for name in names for entry in entries[name]))


if __name__ == "__main__":
    main()
