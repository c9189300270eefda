"""Schemas by their id, from a schema registry with Confluent's HTTP interface; each is asked for once.

Source of the interface: https://docs.confluent.io/platform/current/schema-registry/develop/api.html.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import httpx
import msgspec

from infra.errors import InputError

_ATTEMPTS = 3
_PAUSE_S = 0.2
# Broken records name any id; that many unknown ones are remembered, so that each is asked for once in a while only.
_UNKNOWN_KEPT = 10_000
_UNKNOWN_FOR_S = 60.0
# So many schemas may refer to each other in a row.
_DEEPEST = 50


class UnknownSchemaError(ValueError):
    """The registry does not know the id, or not all that its schema refers to; the record is at fault."""


class RegistryAwayError(InputError):
    """The registry does not answer now, or says that it cannot; a later try may succeed."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as the registry gives it.

    Attributes:
        kind: `AVRO`, `JSON` or `PROTOBUF`.
        text: the schema itself.
        references: schemas that must be known before this one, in their order.
    """

    kind: str
    text: str
    references: tuple["Schema", ...] = ()


class _Reference(msgspec.Struct):
    subject: str
    version: int | str


class _Answer(msgspec.Struct, rename="camel"):
    """What a registry says of a schema."""

    schema: str
    schema_type: str | None = None
    references: list[_Reference] | None = None


class SchemaSource(Protocol):
    """Schemas by id."""

    def schema(self, schema_id: int) -> Schema:
        """Return a schema.

        Raises:
            UnknownSchemaError: there is none of that id, or it is not whole.
            RegistryAwayError: it cannot be told now.
            InputError: it cannot be told however often it is asked.
        """
        ...


class SchemaRegistry:
    """A client that keeps what it was told: a schema never changes once it has an id.

    Args:
        url: of the registry; it may have a path.
        auth: user name and password.
        timeout_s: for each request.
        transport: in the place of the network, for tests.
        clock_s, sleep: the time and the waiting between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: tuple[str, str] | None = None,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            # Why it is none may hold a part of a password.
            raise InputError("the address of the schema registry is no URL", fix=_FIX) from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError("the address of the schema registry is no http(s) URL", fix=_FIX)
        # Credentials in the URL never reach a message.
        self.shown_url = str(parsed.copy_with(userinfo=b""))
        self._base = url.rstrip("/")
        self._client = httpx.Client(auth=auth, timeout=timeout_s, transport=transport, follow_redirects=True)
        self._clock_s = clock_s
        self._sleep = sleep
        self._known: dict[int, Schema] = {}
        # Until when, and why.
        self._unknown: dict[int, tuple[float, str]] = {}

    def schema(self, schema_id: int) -> Schema:
        """Return a schema; see `SchemaSource`."""
        known = self._known.get(schema_id)
        if known is not None:
            return known
        until_s, reason = self._unknown.get(schema_id, (float("-inf"), ""))
        if self._clock_s() < until_s:
            raise UnknownSchemaError(reason)
        try:
            schema = self._known[schema_id] = self._asked(schema_id)
        except UnknownSchemaError as error:
            if len(self._unknown) >= _UNKNOWN_KEPT:
                self._unknown.clear()
            self._unknown[schema_id] = self._clock_s() + _UNKNOWN_FOR_S, str(error)
            raise
        return schema

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _asked(self, schema_id: int) -> Schema:
        found = self._get(f"/schemas/ids/{schema_id}")
        if found is None:
            raise UnknownSchemaError(f"the registry knows no schema {schema_id}")
        return self._schema(found, schema_id, set())

    def _schema(self, found: _Answer, schema_id: int, above: set[tuple[str, str]]) -> Schema:
        if len(above) > _DEEPEST:
            raise UnknownSchemaError(f"schema {schema_id}: more than {_DEEPEST} schemas refer to each other in a row")
        references = []
        for each in found.references or ():
            subject, version = each.subject, str(each.version)
            if (subject, version) in above:
                raise UnknownSchemaError(f"schema {schema_id}: {subject} version {version} refers to itself")
            referred = self._get(f"/subjects/{quote(subject, safe='')}/versions/{quote(version, safe='')}")
            if referred is None:
                raise UnknownSchemaError(
                    f"schema {schema_id}: the registry lacks {subject} version {version}, which it refers to"
                )
            references.append(self._schema(referred, schema_id, above | {(subject, version)}))
        return Schema((found.schema_type or "AVRO").upper(), found.schema, tuple(references))

    def _get(self, path: str) -> _Answer | None:
        """Return the answer to a request, None if there is no such thing."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._sleep(_PAUSE_S * 2**attempt)
            try:
                answer = self._client.get(self._base + path)
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                continue
            if answer.status_code == httpx.codes.NOT_FOUND:
                self._check_not_found(answer)
                return None
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise self._failure(f"it refuses the user name or the password (HTTP {answer.status_code})")
            if answer.status_code == httpx.codes.OK:
                return self._body(answer)
            reason = f"HTTP {answer.status_code}"
        raise RegistryAwayError(self._failed(reason), fix=_FIX)

    def _check_not_found(self, answer: httpx.Response) -> None:
        """Tell a schema that does not exist from an address that is no registry: a registry says so in JSON."""
        try:
            body = msgspec.json.decode(answer.content)
        except (msgspec.DecodeError, RecursionError):
            body = None
        if not isinstance(body, dict) or "error_code" not in body:
            raise self._failure("what answers there is no schema registry (HTTP 404)")

    def _body(self, answer: httpx.Response) -> _Answer:
        try:
            return msgspec.json.decode(answer.content, type=_Answer)
        except msgspec.ValidationError as error:
            raise self._failure(f"its answer is not that of a registry ({error})") from None
        except (msgspec.DecodeError, RecursionError):
            raise self._failure("its answer is no JSON that holds a schema") from None

    def _failure(self, reason: str) -> InputError:
        return InputError(self._failed(reason), fix=_FIX)

    def _failed(self, reason: str) -> str:
        return f"the schema registry {self.shown_url} cannot be asked: {reason}"


_FIX = "check [schema_registry] url, user and password_file, and that the registry runs; nothing was skipped"
