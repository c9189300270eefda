"""API keys: who may do what with which graphs. Only a hash of a key is kept."""

import asyncio
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from forecasting.service_file import ServiceFile
from infra.errors import UsageError

ALL_GRAPHS = "*"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
_GRAPHS = re.compile(r"\*|[a-z0-9][a-z0-9._:-]{0,127}\*?")
_TOKEN = re.compile(r"gt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_COLUMNS = "id, name, scope, graphs, created_us, revoked_us"


class Scope(IntEnum):
    """What a key may do; each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret.

    Attributes:
        id: public part of the key.
        name: what its owner calls it.
        scope: what it may do.
        graphs: which graphs it may do that with: names, prefixes that end with `*`, `*` for all.
        created_us, revoked_us: times in UTC microseconds; None while it is valid.
        digest: hash of its secret; empty where that was not read.
    """

    id: str
    name: str
    scope: Scope
    graphs: tuple[str, ...]
    created_us: int = 0
    revoked_us: int | None = None
    digest: bytes = field(default=b"", compare=False, repr=False)

    def sees(self, graph: str) -> bool:
        """Tell whether the key is for `graph`."""
        return any(
            graph == pattern or (pattern.endswith("*") and graph.startswith(pattern[:-1])) for pattern in self.graphs
        )


# Who asks where the service has no keys: anyone on this machine.
ANYONE = Key("", "anyone", Scope.ADMIN, (ALL_GRAPHS,))


class Keys:
    """The keys in a service's file."""

    def __init__(self, file: ServiceFile) -> None:
        self._file = file

    def create(self, name: str, scope: Scope, graphs: Sequence[str]) -> tuple[Key, str]:
        """Make a key; return it with the token, which is shown this once.

        Raises:
            UsageError: a name cannot be used, or is taken.
            StoreError: the file cannot be written.
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"a key cannot be called {name!r}", fix="use letters, digits and . _ -, at most 64")
        for pattern in graphs:
            if _GRAPHS.fullmatch(pattern) is None:
                raise UsageError(
                    f"--graph cannot be {pattern!r}", fix="name a graph, a prefix such as shop.*, or * for all"
                )
        if not graphs:
            raise UsageError("a key needs graphs", fix="add --graph NAME, more than once for several, or --graph '*'")
        key = Key(secrets.token_hex(6), name, scope, tuple(graphs), self._file.now_us())
        token, digest = _new_secret(key.id)
        with self._file.transaction() as connection:
            taken = connection.execute("SELECT revoked_us FROM keys WHERE name = ?", (name,)).fetchone()
            if taken is not None and taken[0] is not None:
                raise UsageError(f"there was a key {name!r}, which is revoked", fix="take another name: that one stays")
            if taken is not None:
                raise UsageError(f"there is a key {name!r} already", fix="take another name, or rotate that one")
            connection.execute(
                "INSERT INTO keys (id, name, secret_hash, scope, graphs, created_us) VALUES (?, ?, ?, ?, ?, ?)",
                (key.id, name, digest, scope.name.lower(), json.dumps(graphs), key.created_us),
            )
        return key, token

    def rotate(self, name: str) -> tuple[Key, str]:
        """Give a key a new secret; the old one ends at once. Return it with the new token.

        Raises:
            UsageError: there is no such valid key.
            StoreError: the file cannot be written.
        """
        # Looked up where nobody else writes: a token of a key that is revoked meanwhile would be of no use.
        with self._file.transaction() as connection:
            key = self._valid(name)
            token, digest = _new_secret(key.id)
            connection.execute("UPDATE keys SET secret_hash = ? WHERE id = ?", (digest, key.id))
        return key, token

    def revoke(self, name: str) -> Key:
        """End a key.

        Raises:
            UsageError: there is no such valid key.
            StoreError: the file cannot be written.
        """
        with self._file.transaction() as connection:
            key = self._valid(name)
            connection.execute("UPDATE keys SET revoked_us = ? WHERE id = ?", (self._file.now_us(), key.id))
        return key

    def all(self) -> list[Key]:
        """Return all keys, revoked ones too, in the order in which they were made."""
        return [_key(row) for row in self._file.rows(f"SELECT {_COLUMNS} FROM keys ORDER BY created_us, id")]

    def valid(self) -> list[Key]:
        """Return the keys that are not revoked, with the digests of their secrets."""
        sql = f"SELECT secret_hash, {_COLUMNS} FROM keys WHERE revoked_us IS NULL"
        return [replace(_key(row[1:]), digest=bytes(row[0])) for row in self._file.rows(sql)]

    def exist(self) -> bool:
        """Tell whether a key was ever made: revoking the last one must not open the service."""
        return bool(self._file.rows("SELECT 1 FROM keys LIMIT 1"))

    def _valid(self, name: str) -> Key:
        for key in self.all():
            if name in (key.name, key.id) and key.revoked_us is None:
                return key
        raise UsageError(f"there is no valid key {name!r}", fix="see: graphtide keys list")


class KeyRing:
    """The valid keys in memory, read again when they are older than `refresh_s`. For one event loop.

    They are read in a thread, once for all who wait for them: a database that does not answer keeps those waiting who
    need its word, and nobody else.

    Args:
        keys: where they come from.
        refresh_s: how long a key that was revoked, or an old secret, may still be taken for valid.
    """

    def __init__(self, keys: Keys, *, refresh_s: float) -> None:
        self._keys = keys
        self._refresh_s = refresh_s
        self._read_at = float("-inf")
        self._valid: dict[str, Key] = {}
        self._is_open = False
        self._reading: asyncio.Task[None] | None = None

    async def caller(self, token: str | None) -> Key | None:
        """Return whose token this is; None where it is nobody's. Where no key was ever made, anyone is welcome.

        Raises:
            StoreError: the keys cannot be read.
        """
        await self._refresh()
        if self._is_open:
            return ANYONE
        match = _TOKEN.fullmatch(token or "")
        if match is None:
            return None
        key = self._valid.get(match[1])
        # Compared also where there is no such key, so that the time does not tell.
        is_right = hmac.compare_digest(_hash(match[2]), b"\0" * 32 if key is None else key.digest)
        return key if is_right else None

    async def holds(self, key: Key) -> bool:
        """Tell whether a caller whose key was valid may go on: it was neither revoked nor given a new secret since.

        Raises:
            StoreError: the keys cannot be read.
        """
        await self._refresh()
        known = self._valid.get(key.id)
        return self._is_open or (known is not None and known.digest == key.digest)

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at <= self._refresh_s:
            return
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._was_read)
        # One who gives up does not end the reading for the others.
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        begun_at = time.monotonic()
        valid, is_open = await asyncio.to_thread(lambda: (self._keys.valid(), not self._keys.exist()))
        self._valid = {key.id: key for key in valid}
        self._is_open, self._read_at = is_open, begun_at

    def _was_read(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # looked at here, in case that nobody waits any more


def _new_secret(key_id: str) -> tuple[str, bytes]:
    secret = secrets.token_urlsafe(32)
    return f"gt_{key_id}_{secret}", _hash(secret)


def _hash(secret: str) -> bytes:
    # A fast hash will do: there is no dictionary of 256 random bits.
    return hashlib.sha256(secret.encode()).digest()


def _key(row: tuple[str, str, str, str, int, int | None]) -> Key:
    key_id, name, scope, graphs, created_us, revoked_us = row
    return Key(key_id, name, Scope[scope.upper()], tuple(json.loads(graphs)), created_us, revoked_us)
