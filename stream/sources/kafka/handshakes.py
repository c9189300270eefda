"""Why kafka-python got no connection: it tries on with a wrong password, and in the end says that time is over."""

from functools import partial
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

# A broker answers a wrong password and closes the connection at once; the library often sees only that it was closed.
# A broker that stops closes connections too, but then refuses new ones.
MOST_CUT_OFF = 3


class Handshakes:
    """Watches the connections of one client of the library while it is made."""

    def __init__(self) -> None:
        self._clients: list[Any] = []
        self._refused: Exception | None = None
        self._cut_off = 0

    def client(self, **options: Any) -> Any:
        """Make the inner client, as the option `kafka_client` wants it."""
        client = KafkaNetClient(**options)
        self._clients.append(client)
        with_sasl = str(options.get("security_protocol", "")).startswith("SASL")
        connect = client._manager.get_connection

        def watched(*args: Any, **more: Any) -> Any:
            connection = connect(*args, **more)
            connection.init_future.add_errback(partial(self.note, connection, with_sasl))
            return connection

        client._manager.get_connection = watched
        return client

    def note(self, connection: Any, with_sasl: bool, error: Exception) -> None:
        """Take the end of a connection that did not get ready."""
        if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
            self._refused = error
        elif with_sasl and isinstance(error, kafka_errors.KafkaConnectionError):
            # What the broker can do is asked before who we are: one that told it had let us in.
            self._cut_off += connection.broker_version_data is not None

    def refusal(self) -> str | None:
        """Return how the brokers refused the credentials; None if that is not why there is no connection."""
        if self._refused is not None:
            return str(self._refused)
        if self._cut_off >= MOST_CUT_OFF:
            return "they close the connection while it says who it is"
        return None

    def close(self) -> None:
        """End the threads of clients that were not made to the end."""
        for client in self._clients:
            client.close()
            client._manager._net.stop()
