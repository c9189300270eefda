"""nginx with the configuration that this project offers, before servers on other ports."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import httpx

from forecasting.bench.servers.base import MissingServerError, Server, find_program

CONFIGURATION = Path(__file__).parents[2] / "infra" / "nginx" / "graphtide.conf"
_MAIN = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    add_header X-Upstream $upstream_addr always;
    include {folder}/graphtide.conf;
}}
"""


class NginxServer(Server):
    """One nginx before servers of this machine.

    Args:
        folder: where its files go.
        ports: of the servers.
    """

    name: ClassVar[str] = "nginx"

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        super().__init__(folder)
        self._ports = ports

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration: the offered one with other ports, and what stands around it."""
        self._program()
        text = CONFIGURATION.read_text(encoding="utf-8")
        for offered, port in zip((8001, 8002), self._ports, strict=True):
            assert f"127.0.0.1:{offered}" in text
            text = re.sub(rf"127\.0\.0\.1:{offered}\b", f"127.0.0.1:{port}", text)
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        (self.folder / "graphtide.conf").write_text(text, encoding="utf-8")
        (self.folder / "nginx.conf").write_text(_MAIN.format(folder=self.folder), encoding="utf-8")

    def command(self) -> list[str]:
        """Return the command; one process in the foreground."""
        folder = str(self.folder)
        return [str(self._program()), "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]

    def answers(self, timeout_s: float) -> bool:
        """Ask for anything."""
        try:
            httpx.get(self.url, timeout=timeout_s)
        except httpx.HTTPError:
            return False
        return True

    def _program(self) -> Path:
        # Where the packages put it; the search path of a user that is not root lacks that folder.
        usual = Path("/usr/sbin/nginx")
        try:
            return find_program("nginx", server=self.name)
        except MissingServerError:
            if usual.exists():
                return usual
            raise
