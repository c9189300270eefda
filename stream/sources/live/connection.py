"""What connections to live sources share: messages, why they end, and which answers are worth another try."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from infra.errors import InputError, UsageError

# The server says when to come back; more than a day is a mistake, or as good as never.
MAX_RETRY_AFTER_S = 86_400.0
# What is kept of a message that is too long, to show it.
BEGINNING_BYTES = 800
# Answers that a later try can change, beside all 5xx.
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_NO_ACCESS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


@dataclass(frozen=True, slots=True)
class Message:
    """What a server sent.

    Attributes:
        value: the payload; None for a sign of life without one.
        event: the name of the event, "" for none.
        id: what server-sent events resume after, "" for none.
        retry_s: how long the server wants to be left alone before the next connection, None if it did not say.
        too_long: the beginning of a payload that is longer than may be, as far as it is known; `value` is None then.
    """

    value: bytes | None = None
    event: str = ""
    id: str = ""
    retry_s: float | None = None
    too_long: bytes | None = None


class DroppedError(Exception):
    """A connection ended or was not made, and another try is worth it.

    Args:
        reason: why, in one line.
        retry_after_s: how long the server wants to be left alone, None if it did not say.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect and with which headers; the URL may hold a cursor, the headers may hold a secret.

    `bounded` says that the URL asks the server to leave out messages that are longer than may be.
    """

    url: str
    headers: Mapping[str, str]
    bounded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may take.

    Attributes:
        connect_timeout_s: for the connection and the answer to it.
        read_timeout_s: of silence, heartbeats included, after which it counts as lost.
        max_message_bytes: the payload of a longer message is dropped, so that memory stays bounded.
    """

    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    max_message_bytes: int = 8 << 20


class Connection(Protocol):
    """One connection to a server."""

    def messages(self) -> Iterator[Message]:
        """Connect, yield an empty message once connected, then what the server sends, until the connection ends.

        Raises:
            DroppedError: it ended; also by a regular end of the stream.
            InputError: the server will not serve this, however often it is asked.
        """
        ...

    def close(self) -> None:
        """End `messages` from another thread; it raises, or returns, soon after."""
        ...


def checked_url(url: str, schemes: tuple[str, ...], setting: str) -> str:
    """Return the address of a server.

    Raises:
        UsageError: it has another scheme or no host, or holds a secret.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable:
        shown = " or ".join(f"{scheme}://HOST/…" for scheme in schemes)
        raise UsageError(
            f"{shown_url(url)!r} is no address of a live source", fix=f"give {shown} as --url or {setting}"
        )
    if parts.password or parts.username or "access_token" in parts.query:
        raise UsageError(
            f"the address {shown_url(url)} holds a secret",
            fix="leave it out of the address, and give the token in a file or in the environment",
        )
    return url


def shown_url(url: str) -> str:
    """Return an address as messages show it: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def refusal(status: int, headers: Mapping[str, str], url: str) -> Exception:
    """Return what an HTTP answer other than the one hoped for means: `DroppedError`, or `InputError` for good."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "?"
    answer, where = f"HTTP {status} ({phrase})", shown_url(url)
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return DroppedError(f"{where} answers {answer}", retry_after_s=retry_after_s(headers.get("retry-after")))
    if status in _NO_ACCESS:
        return InputError(f"{where} refuses access: {answer}", fix="check the access token and what it may read")
    if status == HTTPStatus.NO_CONTENT:
        return InputError(f"{where} has nothing to send and asks not to be called again: {answer}", fix="check --url")
    return InputError(f"{where} cannot be read: {answer}", fix="check the address: --url")


def retry_after_s(value: str | None, *, now: datetime | None = None) -> float | None:
    """Return the seconds of a `Retry-After` header, which holds seconds or a date; None if it says nothing usable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def too_long(url: str, limit: int) -> InputError:
    """Return the error of a message that is longer than `limit` bytes."""
    return InputError(
        f"{shown_url(url)} sent a message of more than {limit:,} bytes",
        fix="raise [live] max_message_bytes if such messages are meant",
    )
