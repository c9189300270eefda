"""Where an InfluxDB is: its URL, organisation and bucket, and the token that is never shown."""

import hashlib
import os
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from infra.errors import UsageError
from infra.secret_file import read_secret
from infra.settings import ENV_PREFIX, InfluxDBSettings

TOKEN_VARIABLE = f"{ENV_PREFIX}INFLUXDB__TOKEN"
SCHEMES = {"influxdb": "http", "influxdb+https": "https"}
_FORM = "influxdb://host:port/organisation/bucket, or influxdb+https:// for TLS"

# A token is sent in a header of HTTP, which has characters of one byte.
_LAST_OF_HEADERS = "\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxAddress:
    """What a client needs to reach one bucket.

    Attributes:
        url: address of the server, such as http://localhost:8086.
        org: organisation; InfluxDB 1.8 takes any.
        bucket: bucket; of InfluxDB 1.8 `database/retention policy`.
        token: what proves the right to it, empty for none; of InfluxDB 1.8 `user:password`.
        timeout_s: how long a request may take.
        batch_points: points in one write, at most.
        max_wait_s: longest wait between two tries.
        settle_s: how long a request that was given up may still be at work in the server.
    """

    url: str
    org: str
    bucket: str
    token: str = field(default="", repr=False)
    timeout_s: float = 10.0
    batch_points: int = 5000
    max_wait_s: float = 30.0
    settle_s: float = 10.0

    @property
    def place(self) -> str:
        """The bucket as messages name it, without the token."""
        return f"bucket {self.bucket!r} of InfluxDB at {self.url}"

    @property
    def key(self) -> str:
        """A digest that tells this bucket from others, without the token."""
        parts = (self.url.rstrip("/"), self.org, self.bucket)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def store_url(self) -> str:
        """The address as a store URL, without the token."""
        parts = urlsplit(self.url)
        scheme = next(scheme for scheme, http in SCHEMES.items() if http == parts.scheme)
        return f"{scheme}://{parts.netloc}/{quote(self.org, safe='')}/{quote(self.bucket)}"


def is_influx_url(url: str) -> bool:
    """Tell whether a store URL names an InfluxDB."""
    return url.partition("://")[0] in SCHEMES


def address_of_url(url: str, settings: InfluxDBSettings | None = None) -> InfluxAddress:
    """Return the bucket that a store URL names.

    Args:
        url: `influxdb://host:port/organisation/bucket`; organisation and bucket may be percent-encoded.
        settings: token and limits; without them the defaults, and the token of the environment.

    Raises:
        UsageError: the URL is not of that form, or the token file cannot be read.
    """
    _check_host(url, "[store] url", f"write {_FORM}")
    scheme, _, rest = url.partition("://")
    netloc, _, path = rest.partition("/")
    org, _, bucket = path.partition("/")
    if scheme not in SCHEMES or not netloc or not org or not bucket or "?" in rest or "#" in rest:
        # The text may hold a password, so that it is not repeated.
        raise UsageError("not the address of an InfluxDB bucket", place="[store] url", fix=f"write {_FORM}")
    if "@" in netloc:
        raise UsageError(
            "a password or token does not belong in the address of a store",
            place="[store] url",
            fix=f"write {_FORM}, and give the token as {TOKEN_VARIABLE} or by [influxdb] token_file",
        )
    return _address(f"{SCHEMES[scheme]}://{netloc}", unquote(org), unquote(bucket), settings or InfluxDBSettings())


def address_of_settings(settings: InfluxDBSettings) -> InfluxAddress | None:
    """Return the bucket that snapshots are projected to, None where `[influxdb] url` is empty.

    Raises:
        UsageError: the URL is none, bucket or organisation are missing, or the token file cannot be read.
    """
    if not settings.url:
        return None
    _check_host(settings.url, "[influxdb] url", "write http://host:8086 or https://host:8086")
    parts = urlsplit(settings.url)
    if parts.scheme not in SCHEMES.values() or not parts.netloc or parts.path.strip("/") or parts.query:
        raise UsageError(
            "[influxdb] url is not the address of a server", fix="write http://host:8086 or https://host:8086"
        )
    if "@" in parts.netloc:
        raise UsageError(
            "a password or token does not belong in [influxdb] url",
            fix=f"give it as {TOKEN_VARIABLE} in the environment, or by [influxdb] token_file",
        )
    for name in ("org", "bucket"):
        if not getattr(settings, name):
            raise UsageError(
                f"[influxdb] {name} is empty",
                fix="give both org and bucket; InfluxDB 1.8 takes any org, and database/autogen as bucket",
            )
    return _address(f"{parts.scheme}://{parts.netloc}", settings.org, settings.bucket, settings)


def _check_host(url: str, setting: str, fix: str) -> None:
    """Make sure that a URL can be taken apart; one may hold a password, so that it is not repeated."""
    try:
        # Only this looks at the port.
        _ = urlsplit(url).port
    except ValueError:
        raise UsageError("the host or the port of the InfluxDB cannot be read", place=setting, fix=fix) from None


def _address(url: str, org: str, bucket: str, settings: InfluxDBSettings) -> InfluxAddress:
    return InfluxAddress(
        url=url,
        org=org,
        bucket=bucket,
        token=_token(settings),
        timeout_s=settings.timeout_s,
        batch_points=settings.batch_points,
        max_wait_s=settings.max_wait_s,
        settle_s=settings.timeout_s,
    )


def _token(settings: InfluxDBSettings) -> str:
    given = settings.token.get_secret_value() or os.environ.get(TOKEN_VARIABLE, "")
    place = TOKEN_VARIABLE
    token = given.strip()
    if not given and settings.token_file:
        place = "[influxdb] token_file"
        token = read_secret(settings.token_file, of="InfluxDB", kind="token", place=place, variable=TOKEN_VARIABLE)
    if not all(char.isprintable() and char <= _LAST_OF_HEADERS for char in token):
        raise UsageError(
            "the token of InfluxDB has a character that cannot be sent",
            place=place,
            fix="give the token as InfluxDB shows it, in one line; of InfluxDB 1.8 user:password",
        )
    return token
