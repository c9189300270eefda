"""Our own forecast service as a server of its own: `graphtide serve` with settings from the environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError
from urllib.request import urlopen

from forecasting.bench.processes import ROOT
from forecasting.bench.servers.base import Server
from forecasting.keys import Keys, Scope
from forecasting.service_file import ServiceFile

PROGRAM = (sys.executable, "-c", "import sys; from forecasting.cli import main; sys.exit(main())")


class GraphtideService(Server):
    """One `graphtide serve` with a service file of its own.

    Args:
        folder: where it keeps what it writes.
        store_url: the store that it follows.
        settings: others, as GRAPHTIDE_* variables of the environment.
        data: folder of its jobs, keys and spool, if that is another one.
    """

    name: ClassVar[str] = "graphtide"

    def __init__(
        self, folder: Path, store_url: str, settings: Mapping[str, str] | None = None, *, data: Path | None = None
    ) -> None:
        super().__init__(folder)
        self.data = data or folder
        self.service_db = self.data / "service.db"
        self._settings = {
            "GRAPHTIDE_STORE__URL": store_url,
            "GRAPHTIDE_API__SERVICE_DB": str(self.service_db),
            "GRAPHTIDE_API__PORT": str(self.port),
            "GRAPHTIDE_MODELS__DIRECTORY": str(folder / "models"),
            "GRAPHTIDE_SPOOL__PATH": str(self.data / "spool.db"),
            **(settings or {}),
        }

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Nothing is laid out: the service makes its files itself."""

    def command(self) -> list[str]:
        """Return the command."""
        return [*PROGRAM, "serve"]

    def environment(self) -> dict[str, str]:
        """Return the environment with the settings; no module of a working directory stands in for ours."""
        return {**os.environ, **self._settings, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}

    def answers(self, timeout_s: float) -> bool:
        """Ask whether it is ready."""
        try:
            with urlopen(f"{self.url}/readyz", timeout=timeout_s) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def make_key(self, name: str, scope: Scope, *graphs: str) -> str:
        """Make an API key and return its token."""
        self.data.mkdir(parents=True, exist_ok=True)
        with ServiceFile(self.service_db) as file:
            return Keys(file).create(name, scope, graphs or ("*",))[1]
