"""A Redis as the store of shared answers: its address and password from the settings, its failures as OSError."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from infra.errors import UsageError
from infra.secret_file import read_secret
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
        found: bytes = await self._answer(self._redis.getrange(name, 0, max_bytes - 1))
        return found or None

    async def put(self, name: str, value: bytes, lifetime_s: int) -> None:
        """Keep a value for so long."""
        await self._answer(self._redis.set(name, value, ex=lifetime_s))

    async def ping(self) -> None:
        """Return if it answers."""
        await self._answer(self._redis.ping())

    async def close(self) -> None:
        """Close the connections."""
        with suppress(RedisError):
            await self._redis.aclose()

    async def _answer(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except RedisError as error:
            if isinstance(error, RedisConnectionError):
                # Other idle connections are of the same server that is gone: each would fail once more when it is back.
                # That closing one takes too long is no other failure than the one that is told.
                with suppress(RedisError):
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise _away(error) from None


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
    place, path = "[cache] redis_password_file", settings.redis_password_file
    return read_secret(path, of="the Redis", kind="password", place=place, variable=PASSWORD_VARIABLE) or None
