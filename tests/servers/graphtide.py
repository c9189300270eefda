"""Graphtide's own processes as servers: the service, and an ingestion from Kafka."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import httpx

from forecasting.bench.servers.base import Server
from tests import plain_http


class _GraphtideProcess(Server):
    """A call of the command line that answers HTTP on its port."""

    ready_path: ClassVar[str]

    def __init__(self, folder: Path, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        """Prepare a process that works in `folder`; `settings` are variables of its environment."""
        super().__init__(folder)
        self._arguments: Sequence[str] = arguments
        self._settings = settings

    @property
    def url(self) -> str:
        """The address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Need nothing: the command is installed beside this Python."""

    def environment(self) -> dict[str, str]:
        """Return this environment, with the settings of the process in the place of those of the caller."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_")}
        return kept | {"OMP_NUM_THREADS": "1"} | dict(self._settings)

    def command(self) -> list[str]:
        """Return the command."""
        return [str(Path(sys.executable).with_name("graphtide")), *self._arguments]

    def answers(self, timeout_s: float) -> bool:
        """Tell whether it answers 200."""
        try:
            return plain_http.get(self.url + self.ready_path, timeout=timeout_s).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


class ServeProcess(_GraphtideProcess):
    """`graphtide serve`."""

    name: ClassVar[str] = "serve"
    ready_path: ClassVar[str] = "/readyz"

    def __init__(self, folder: Path, store: str, settings: Mapping[str, str]) -> None:
        """Prepare a service that follows `store`."""
        super().__init__(folder, (), settings)
        self._arguments = ("serve", "--port", str(self.port), "--store", store)


class IngestProcess(_GraphtideProcess):
    """`graphtide ingest kafka --follow`, with its metrics on the port."""

    name: ClassVar[str] = "ingest"
    ready_path: ClassVar[str] = "/metrics"

    def __init__(self, folder: Path, store: str, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        """Prepare an ingestion into `store`; `arguments` name brokers and topics."""
        super().__init__(folder, (), settings)
        self._arguments = (
            *("ingest", "kafka", "--follow", "--store", store, "--metrics-port", str(self.port)),
            *arguments,
        )
