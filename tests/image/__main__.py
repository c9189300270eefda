"""Replay the Dockerfile and check what comes out: `python -m tests.image --full --device cuda`."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.image.base import MissingToolError
from tests.image.build import StepError
from tests.image.checks import CHECKS
from tests.image.dockerfile import DockerfileError
from tests.image.replay import replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 1 where a step or a check fails, 2 where this machine cannot."""
    parser = argparse.ArgumentParser(prog="python -m tests.image", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="which image (default %(default)s)")
    parser.add_argument("--full", action="store_true", help="install torch as the image does: some gigabytes")
    given = parser.parse_args(arguments)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graphtide-image-") as name:
        folder = Path(name)
        try:
            made = replay(folder / "build", device=given.device, full=given.full, say=_say)
        except MissingToolError as missing:
            print(f"it cannot be replayed here: {missing}", file=sys.stderr)
            return 2
        except (StepError, DockerfileError) as failed:
            print(failed, file=sys.stderr)
            return 1
        failures = 0
        for check in CHECKS:
            began_check_s = time.monotonic()
            try:
                check(made, folder / "data")
            except (AssertionError, ChildProcessError, subprocess.TimeoutExpired) as failed:
                failures += 1
                print(f"FAILED  {check.__name__}: {failed}", file=sys.stderr)
            else:
                _say(f"{time.monotonic() - began_check_s:6.1f} s  {check.__name__}")
    _say(f"{time.monotonic() - began_s:6.1f} s  in all; {failures} of {len(CHECKS)} checks failed")
    return 1 if failures else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
