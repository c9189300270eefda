"""nginx with the configuration that comes with Graphtide, before several serving processes."""

import socket
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import ClassVar

from forecasting.bench.servers.base import Server, find_program

TEMPLATE = Path(__file__).parents[2] / "infra" / "nginx" / "graphtide.conf.template"
_AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  log_format tries '$status $upstream_status $request_time $request';
  access_log {folder}/tries.log tries;
  add_header X-Upstream $upstream_addr always;
  include {folder}/graphtide.conf;
}}
"""


class _OfTheImage(Template):
    """The variables of the nginx image alone: those of nginx have no braces."""

    pattern = r"\$(?:(?P<escaped>\$)|\{(?P<braced>GRAPHTIDE_[A-Z]+)\}|(?P<named>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


class NginxServer(Server):
    """One nginx; its upstreams are given before it starts."""

    name: ClassVar[str] = "nginx"

    def __init__(self, folder: Path, upstreams: Sequence[int]) -> None:
        """Prepare nginx before services on these ports of this machine."""
        super().__init__(folder)
        self._upstreams = upstreams

    @property
    def url(self) -> str:
        """The address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration."""
        find_program("nginx", server=self.name)
        servers = " ".join(f"server 127.0.0.1:{port} max_fails=3 fail_timeout=5s;" for port in self._upstreams)
        filled = _OfTheImage(TEMPLATE.read_text()).substitute(
            GRAPHTIDE_UPSTREAMS=servers, GRAPHTIDE_LISTEN=f"127.0.0.1:{self.port}"
        )
        (self.folder / "graphtide.conf").write_text(filled)
        (self.folder / "nginx.conf").write_text(_AROUND.format(folder=self.folder))

    def command(self) -> list[str]:
        """Return the command."""
        program = find_program("nginx", server=self.name)
        return [str(program), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]

    def answers(self, timeout_s: float) -> bool:
        """Tell whether it takes connections."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout_s):
                return True
        except OSError:
            return False

    def tries(self) -> list[str]:
        """Return a line an answered request: status, statuses of the upstreams, seconds, request."""
        path = self.folder / "tries.log"
        return path.read_text().splitlines() if path.is_file() else []
