"""Worker processes and the environments of peers, from the side that asks. Standard library only."""

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import forecasting

# What each peer's environment holds beside the torch of this one, which all systems share. Fixed, so that results
# compare over time.
PEER_REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "huggingface": ("transformers==5.23.0",),
    "mamba-ssm": ("mamba-ssm==2.2.4", "causal-conv1d==1.5.0.post8"),
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.40",),
    "ray-serve": ("ray[serve]==2.60.0",),
}
ROOT = Path(forecasting.__file__).parents[1]
CACHE_VARIABLE = "GRAPHTIDE_BENCH_CACHE"
# torch.compile takes a minute on a slow machine, a cached wheel of a peer less.
ANSWER_TIMEOUT_S = 900.0
_INSTALL_TIMEOUT_S = 1800.0
_DONE = "ready"


class PeerError(RuntimeError):
    """A system cannot be measured here; the message says why."""


def cache_folder() -> Path:
    """Return where the environments of peers are kept between runs.

    Raises:
        PeerError: this user has no home folder, and no variable names another.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphtide" / "bench"
    except RuntimeError as error:
        # Not a shared folder for temporary files: what anyone could lay there would be run.
        raise PeerError(
            f"this user has no home folder for environments of peers; name one in {CACHE_VARIABLE}"
        ) from error


def peer_python(system: str, say: Callable[[str], None]) -> str:
    """Return the interpreter of a peer's own environment, made on first use; ours for systems that need no other.

    The environment sees this one's torch and numpy behind its own packages: every system runs on the same torch.

    Raises:
        PeerError: the environment cannot be made, for want of the network for example.
    """
    requirements = PEER_REQUIREMENTS.get(system)
    if requirements is None:
        return sys.executable
    shared = (*dict.fromkeys(path for path in sys.path if path.endswith("site-packages")), str(ROOT))
    return environment_python(system, requirements, say, shared=shared)


def environment_python(
    name: str, requirements: tuple[str, ...], say: Callable[[str], None], *, shared: tuple[str, ...] = ()
) -> str:
    """Return the interpreter of an environment with these packages, made on first use.

    Args:
        name: what it is for.
        requirements: as pip takes them.
        say: told when it is made.
        shared: folders whose packages it sees behind its own.

    Raises:
        PeerError: it cannot be made or kept, for want of the network for example.
    """
    key = hashlib.sha256(json.dumps([requirements, sys.version, shared]).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{key}"
    python = folder / "bin" / "python"
    if (folder / _DONE).is_file():
        return str(python)
    say(f"Making an environment for {name} in {folder} …")
    try:
        # What an interrupted run left is begun anew.
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        (site_packages,) = folder.glob("lib/python*/site-packages")
        # Read after the environment's own packages, and seen by its pip, which then fetches no second torch.
        (site_packages / "shared.pth").write_text("".join(f"{path}\n" for path in shared), encoding="utf-8")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
        )
        (folder / _DONE).touch()
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise PeerError(f"{' '.join(requirements)} cannot be installed: {lines[-1] if lines else error}") from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"no environment can be made in {folder}: {error}") from error
    return str(python)


class WorkerProcess:
    """A running `forecasting.bench.worker`; a context manager that ends it.

    Args:
        python: its interpreter.
        environment: variables beside those of this process.
    """

    def __init__(self, python: str, environment: dict[str, str] | None = None) -> None:
        threads = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GRAPHTIDE_CPU_THREADS"), "1"
        )
        own = {} if python != sys.executable else {"PYTHONPATH": _joined(os.environ.get("PYTHONPATH"), str(ROOT))}
        self._process = subprocess.Popen(
            [python, "-m", "forecasting.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # No module of the folder of the call stands in for ours.
            env={
                **os.environ,
                **threads,
                **own,
                "PYTHONSAFEPATH": "1",
                "HF_HUB_OFFLINE": "1",
                **(environment or {}),
            },
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            PeerError: the worker says that it cannot, has died, or takes too long.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise PeerError(f"the process has ended with code {process.wait()}") from error
        if not select.select([process.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            raise PeerError(f"no answer to {request['do']!r} in {ANSWER_TIMEOUT_S:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise PeerError(f"the process has ended with code {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # A request that the process did not live to read is still in the pipe.
                with suppress(OSError):
                    pipe.close()


def _joined(*paths: str | None) -> str:
    return os.pathsep.join(path for path in paths if path)
