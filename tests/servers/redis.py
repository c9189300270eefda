"""Redis with an append-only file, so that what it has acknowledged outlives a kill."""

import socket
from typing import ClassVar

from forecasting.bench.servers.base import Server, find_program


class RedisServer(Server):
    """One Redis server."""

    name: ClassVar[str] = "redis"

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Find the program; it makes its files itself."""
        find_program("redis-server", server=self.name)

    def command(self) -> list[str]:
        """Return the command; commands are logged before they are acknowledged, snapshots would only cost time."""
        program = find_program("redis-server", server=self.name)
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [str(program), *address, "--appendonly", "yes", "--save", "", "--daemonize", "no"]

    def answers(self, timeout_s: float) -> bool:
        """Send PING; a server that still reads its file answers LOADING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def empty(self) -> None:
        """Delete everything from all databases."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            answer = connection.recv(64)
        assert answer.startswith(b"+OK"), answer
