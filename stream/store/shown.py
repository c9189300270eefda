"""How messages name a store: its address without anything that may be secret."""

from stream.store.influx.address import is_influx_url
from stream.store.postgres_server import SCHEMES, address
from stream.store.sqlite_file import URL_PREFIX, kind_of_url


def shown_store(url: str) -> str:
    """Return a store URL as it is shown: without the user, the password and the options of a server.

    Raises:
        UsageError: it is no URL of a PostgreSQL database although it begins as one; the message does not repeat it.
    """
    if url.startswith(SCHEMES):
        return address(url)
    is_plain = url.startswith(URL_PREFIX) or (is_influx_url(url) and "@" not in url)
    return url if is_plain else kind_of_url(url)
