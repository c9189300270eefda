"""HTTP calls of one InfluxDB: one try each; a failure says whether another try can help."""

import json
from contextlib import suppress
from typing import Any, Self

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.dialect import Dialect
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError

from infra.errors import StoreError
from stream.store.influx.address import TOKEN_VARIABLE, InfluxAddress
from stream.store.influx.flux import failure_in, is_whole
from stream.store.influx.unavailable import UnavailableError

_TRY_LATER = frozenset({408, 425, 429})
_NEVER_SENT = (ConnectTimeoutError, NewConnectionError)
# What InfluxDB 1.8 answers with code 500, and version 2 with 400.
_NOT_FOUND = ("retention policy not found", "database not found", "no database", "organization name")
# The client's types say nothing of these.
_DIALECT: Any = Dialect(header=True, annotations=[], delimiter=",", date_time_format="RFC3339")  # type: ignore[no-untyped-call]
_MICROSECONDS: Any = WritePrecision.US
_SHOWN_CHARS = 300
_SEE_LOG = "look at the log of InfluxDB; nothing is lost, it is tried again"
_SEE_CONNECTION = "start InfluxDB, or check host, port and TLS; nothing is lost, it is tried again"


class TooLargeError(StoreError):
    """The request has more in it than the server or a proxy before it takes at once."""


class Connection:
    """Calls of one bucket; not to be used by several threads at once."""

    def __init__(self, address: InfluxAddress) -> None:
        self._address = address
        # The client's own retries are off: a caller decides, and hears of every failure.
        self._client: Any = InfluxDBClient(
            address.url, address.token, org=address.org, timeout=round(address.timeout_s * 1000), retries=False
        )
        self._write = self._client.write_api(write_options=SYNCHRONOUS)
        self._query = self._client.query_api()

    def write(self, lines: bytes) -> None:
        """Write points in line protocol, with times in microseconds.

        Raises:
            UnavailableError: it may succeed later; any part of the points may have been written.
            TooLargeError: the points have to be sent in parts.
            StoreError: it will not succeed; any part of the points may have been written.
        """
        try:
            self._write.write(self._address.bucket, self._address.org, lines, write_precision=_MICROSECONDS)
        except (ApiException, HTTPError, OSError) as error:
            raise self._explained(error, "write to") from None

    def query(self, flux: str) -> bytes:
        """Return the answer to a query as CSV with a header, without annotations.

        Raises:
            UnavailableError: it may succeed later.
            StoreError: it will not succeed.
        """
        try:
            response = self._query.query_raw(flux, dialect=_DIALECT)
            try:
                body: bytes = response.data
            finally:
                response.release_conn()
        except (ApiException, HTTPError, OSError) as error:
            raise self._explained(error, "read") from None
        failure = failure_in(body)
        if failure is not None:
            raise UnavailableError(
                f"cannot read {self._address.place}: it failed while it answered:"
                f" {_shortened(self._without_token(failure))}",
                fix=_SEE_LOG,
            )
        if not is_whole(body):
            raise UnavailableError(
                f"cannot read {self._address.place}: the connection was closed in the middle of the answer",
                fix=_SEE_CONNECTION,
            )
        return body

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _explained(self, error: Exception, doing: str) -> StoreError:
        failed = f"cannot {doing} {self._address.place}"
        if isinstance(error, ApiException) and error.status:
            said = self._without_token(_said(error))
            return _refusal(error, said, f"{failed}: {said} (HTTP {error.status})")
        if isinstance(error, LocationValueError):
            return StoreError(f"{failed}: no such address", fix="check the host and the port")
        return UnavailableError(
            f"{failed}: {self._without_token(_reason(error))}",
            fix=_SEE_CONNECTION,
            may_go_on=not isinstance(error, _NEVER_SENT),
        )

    def _without_token(self, text: str) -> str:
        token = self._address.token
        return text.replace(token, "…") if token else text


def _refusal(error: ApiException, said: str, failed: str) -> StoreError:
    """Return what an HTTP status above 299 means."""
    if error.status in {401, 403}:
        return StoreError(
            failed, fix=f"check the token in {TOKEN_VARIABLE} or in the file of [influxdb] token_file, and its rights"
        )
    if error.status == 404 or any(words in said for words in _NOT_FOUND):
        return StoreError(
            failed,
            fix="check the organisation, and make the bucket, without an end of retention;"
            " of InfluxDB 1.8 it is database/autogen",
        )
    if error.status == 413:
        return TooLargeError(failed, fix="lower [influxdb] batch_points, or raise the limit of the server")
    if error.status in _TRY_LATER or error.status >= 500:
        # A proxy that waited too long, and InfluxDB itself, which says 500 then, leave the write going on.
        may_go_on = error.status >= 500 and error.status != 503
        return UnavailableError(failed, fix=_SEE_LOG, retry_after_s=_wait(error), may_go_on=may_go_on)
    if 300 <= error.status < 400:
        return StoreError(failed, fix="give the address that it sends to, such as that with https, instead of this one")
    return StoreError(
        failed,
        fix="let nobody else write the measurements graphtide_*, and give the bucket no end of retention;"
        " or use another bucket",
    )


def _reason(error: Exception) -> str:
    """Return the innermost cause of a failed call in one line, without the object that urllib3 names."""
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return text.rpartition("object at 0x")[2].partition(">: ")[2] or text


def _said(error: ApiException) -> str:
    """Return what the server says of its refusal: version 2 writes `message`, version 1.8 `error`."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    text = body.strip()
    with suppress(ValueError):
        told = json.loads(text)
        if isinstance(told, dict):
            text = str(told.get("message") or told.get("error") or text)
    text = " ".join((text or str(error.reason)).split())
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _wait(error: ApiException) -> float:
    try:
        return max(float(error.retry_after or 0), 0.0)
    except (TypeError, ValueError):
        # A date, which proxies may send: the usual wait does.
        return 0.0
