"""A Redis as the store of shared answers: its address and password from the settings, its failures as OSError."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from infra.errors import UsageError
from infra.settings import ENV_PREFIX, CacheSettings

PASSWORD_VARIABLE = f"{ENV_PREFIX}CACHE__REDIS_PASSWORD"
_FORM = "redis://host:6379/0, rediss:// for TLS, or unix:///path/to/socket"
_CONNECTIONS = 16


class RedisStore:
    """A Redis; made without a connection, so that one that is away is found out by the first call.

    Args:
        settings: where it is.

    Raises:
        UsageError: the address is none, or the password cannot be read.
    """

    def __init__(self, settings: CacheSettings) -> None:
        _check(settings.redis_url)
        timeout_s = settings.timeout_s
        # The client's own retries are off: the caller decides, within the time that a request has.
        pool = BlockingConnectionPool.from_url(
            settings.redis_url,
            password=_password(settings),
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = Redis.from_pool(pool)

    async def get(self, name: str, max_bytes: int) -> bytes | None:
        """Return the first `max_bytes` of a value; None if there is none, or it is empty."""
        try:
            found: bytes = await self._redis.getrange(name, 0, max_bytes - 1)
        except RedisError as error:
            raise _away(error) from None
        return found or None

    async def put(self, name: str, value: bytes, lifetime_s: int) -> None:
        """Keep a value for so long."""
        try:
            await self._redis.set(name, value, ex=lifetime_s)
        except RedisError as error:
            raise _away(error) from None

    async def ping(self) -> None:
        """Return if it answers."""
        try:
            await self._redis.ping()
        except RedisError as error:
            raise _away(error) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _away(error: RedisError) -> ConnectionError:
    return ConnectionError(str(error) or type(error).__name__)


def _check(url: str) -> None:
    """Refuse what is no address of a Redis; the text may hold a password, so that it is not repeated."""
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise UsageError("not the address of a Redis", place="[cache] redis_url", fix=f"write {_FORM}") from None
    names_one = parts.path if parts.scheme == "unix" else parts.hostname
    database = parts.path.strip("/")
    is_known = parts.scheme in {"redis", "rediss", "unix"} and (
        parts.scheme == "unix" or database.isdigit() or not database
    )
    if not (is_known and names_one and has_port) or parts.query or parts.fragment:
        raise UsageError("not the address of a Redis", place="[cache] redis_url", fix=f"write {_FORM}")
    if parts.password is not None:
        raise UsageError(
            "a password does not belong in the address of a Redis",
            place="[cache] redis_url",
            fix=f"write redis://user@host:6379/0, and give the password as {PASSWORD_VARIABLE} or by [cache] "
            "redis_password_file",
        )


def _password(settings: CacheSettings) -> str | None:
    given = settings.redis_password.get_secret_value()
    if given or not settings.redis_password_file:
        return given or None
    try:
        return Path(settings.redis_password_file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the password of the Redis cannot be read from {settings.redis_password_file}: {reason}",
            place="[cache] redis_password_file",
            fix=f"name a file that holds the password alone, or set {PASSWORD_VARIABLE}",
        ) from None
