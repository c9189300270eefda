"""InfluxDB 1.8, which answers the write and Flux query calls of version 2 that influxdb-client makes.

It has no calls for buckets, organisations or deletes of version 2: a bucket is `database/retention policy`, and
databases are made through InfluxQL.
Source: docs.influxdata.com/influxdb/v1/tools/api, section "InfluxDB 2.x API compatibility endpoints".
"""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx

from forecasting.bench.servers.base import MissingServerError, Server, free_port, servers_folder
from tests import plain_http

CONFIGURATION = """\
reporting-disabled = true
bind-address = "127.0.0.1:{backup_port}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  flux-enabled = true
  log-enabled = false
"""


@dataclass(frozen=True)
class InfluxDatabase:
    """What a client needs to reach one database, in version 2's words."""

    url: str
    token: str
    org: str
    bucket: str
    server: "InfluxDBServer"


class InfluxDBServer(Server):
    """One InfluxDB server that asks for no password."""

    name: ClassVar[str] = "influxdb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._backup_port = free_port()

    @property
    def url(self) -> str:
        """The address of its HTTP interface."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration."""
        self._program()
        text = CONFIGURATION.format(folder=self.folder, port=self.port, backup_port=self._backup_port)
        (self.folder / "influxdb.conf").write_text(text)

    def command(self) -> list[str]:
        """Return the command."""
        return [str(self._program()), "run", "-config", str(self.folder / "influxdb.conf")]

    def environment(self) -> dict[str, str]:
        """Return the environment with fewer garbage collections, which make up a third of the time of a start."""
        return {**os.environ, "GOGC": "400"}

    def answers(self, timeout_s: float) -> bool:
        """Ask for the list of databases, which needs the store open and not only the listener."""
        try:
            reply = plain_http.get(
                f"{self.url}/query", params={"q": "SHOW DATABASES"}, timeout=timeout_s, trust_env=False
            )
        except httpx.HTTPError:
            return False
        return reply.status_code == httpx.codes.OK and "error" not in reply.json()

    def create_database(self) -> InfluxDatabase:
        """Make an empty database with a name of its own and return how to reach it."""
        database = f"test_{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{database}"')
        return InfluxDatabase(self.url, "graphtide:graphtide", "graphtide", f"{database}/autogen", self)

    def drop_database(self, database: InfluxDatabase) -> None:
        """Delete a database with all that it holds."""
        self._execute(f'DROP DATABASE "{database.bucket.removesuffix("/autogen")}"')

    def _execute(self, statement: str) -> None:
        reply = plain_http.post(f"{self.url}/query", data={"q": statement}, timeout=30, trust_env=False)
        reply.raise_for_status()
        assert "error" not in reply.text, reply.text

    def _program(self) -> Path:
        found = sorted(servers_folder().glob("influxdb-*/influxd"))
        if not found:
            raise MissingServerError(f"there is no influxdb-*/influxd in {servers_folder()}; run .ci/servers")
        return found[-1]
