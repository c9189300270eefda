"""Prometheus, given a configuration and rules."""

from pathlib import Path
from typing import Any, ClassVar

import httpx
import yaml

from forecasting.bench.servers.base import Server, find_program
from tests import plain_http


class PrometheusServer(Server):
    """One Prometheus."""

    name: ClassVar[str] = "prometheus"

    def __init__(self, folder: Path, configuration: dict[str, Any], rules: dict[str, str]) -> None:
        """Prepare Prometheus with a configuration, and rules by the name of their file."""
        super().__init__(folder)
        self._configuration = configuration
        self._rules = rules

    @property
    def url(self) -> str:
        """The address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration and the rules."""
        find_program("prometheus", server=self.name)
        (self.folder / "rules").mkdir()
        for name, text in self._rules.items():
            (self.folder / "rules" / name).write_text(text)
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(self._configuration))

    def command(self) -> list[str]:
        """Return the command."""
        program = find_program("prometheus", server=self.name)
        return [
            str(program),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def answers(self, timeout_s: float) -> bool:
        """Tell whether it is ready."""
        try:
            return plain_http.get(f"{self.url}/-/ready", timeout=timeout_s).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def targets(self) -> dict[str, str]:
        """Return the health of each job's target."""
        found = plain_http.get(f"{self.url}/api/v1/targets", timeout=10).json()["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in found}

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = plain_http.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def value(self, expression: str) -> float | None:
        """Return the value of an expression now; None where it has none."""
        answer = plain_http.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def names(self) -> set[str]:
        """Return the names of all series that were ever scraped or recorded."""
        found = plain_http.get(f"{self.url}/api/v1/label/__name__/values", timeout=10).json()["data"]
        return set(found)
