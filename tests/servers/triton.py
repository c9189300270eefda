"""NVIDIA Triton on the processor, with its Python backend and the Python of this environment."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

import httpx

from forecasting.bench.servers.base import MissingServerError, Server, servers_folder
from tests import plain_http

WHEEL = "0.7.0"


class TritonServer(Server):
    """One Triton server on a model repository.

    Args:
        folder: where its log goes.
        repository: the models.
    """

    name: ClassVar[str] = "triton"

    def __init__(self, folder: Path, repository: Path) -> None:
        super().__init__(folder)
        self._repository = repository

    @property
    def url(self) -> str:
        """The address of its HTTP interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def _backends(self) -> Path:
        return self.folder / "backends"

    def prepare(self) -> None:
        """Lay out the backend with the stub for this Python."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self._home / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise MissingServerError(f"triton: {stub} is not there; run .ci/servers")
        shutil.copytree(self._home / "backends" / "python", self._backends / "python")
        shutil.copy(stub, self._backends / "python")

    def command(self) -> list[str]:
        """Return the command; only HTTP, only this machine."""
        http = ["--http-address", "127.0.0.1", "--http-port", str(self.port), "--http-thread-count", "2"]
        off = ["--allow-grpc", "false", "--allow-metrics", "false"]
        folders = ["--model-repository", str(self._repository), "--backend-directory", str(self._backends)]
        return [str(self._home / "bin" / "tritonserver"), *folders, *http, *off]

    def environment(self) -> dict[str, str]:
        """Let the stub find the Python of this environment as the first on its path."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        libraries = [str(sysconfig.get_config_var("LIBDIR")), str(self._home.parents[1] / "nvidia_pytriton.libs")]
        return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}

    def answers(self, timeout_s: float) -> bool:
        """Ask whether all models are ready."""
        try:
            return plain_http.get(f"{self.url}/v2/health/ready", timeout=timeout_s).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def _home(self) -> Path:
        return servers_folder() / f"triton-{WHEEL}" / "pytriton" / "tritonserver"
