"""Delivery to an S3-compatible bucket: one signed PUT an object. Sent again, an object replaces itself.

The signature is AWS Signature Version 4 (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html).
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from forecasting.reports.targets import guard
from forecasting.reports.targets.parcel import Parcel
from forecasting.reports.targets.secret import read_secret
from infra.settings import TargetSettings


def authorization(
    *,
    method: str,
    path: str,
    headers: Mapping[str, str],
    payload_sha256: str,
    access_key: str,
    secret_key: str,
    region: str,
    moment: datetime,
) -> str:
    """Return the Authorization header of a request without a query.

    Args:
        method: of HTTP.
        path: of the URL, escaped.
        headers: all that are signed, `Host` and `x-amz-date` among them.
        payload_sha256: hexadecimal digest of the body.
        access_key, secret_key, region: of the account.
        moment: the time in `x-amz-date`.
    """
    signed = sorted((name.lower(), value.strip()) for name, value in headers.items())
    names = ";".join(name for name, _ in signed)
    canonical = "\n".join([method, path, "", *(f"{name}:{value}" for name, value in signed), "", names, payload_sha256])
    date = f"{moment:%Y%m%d}"
    scope = f"{date}/{region}/s3/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", f"{moment:%Y%m%dT%H%M%SZ}", scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    mac = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={names},Signature={mac}"


def send(parcel: Parcel, target: TargetSettings, timeout_s: float) -> None:
    """Put the files into the bucket.

    Raises:
        DeliveryError: an object was not taken.
    """
    secret = read_secret(target.secret_file)
    host, server = guard.host_header(target.url), urlsplit(target.url)
    for one in parcel.files:
        # A path of the server's own is signed too: a proxy that took it away would break every client's signature.
        name = f"{unquote(server.path).rstrip('/')}/{target.bucket}/{target.prefix}{parcel.stem}{one.suffix}"
        path = quote(name, safe="/-_.~")
        moment = datetime.now(UTC)
        digest = hashlib.sha256(one.body).hexdigest()
        signed = {
            "Host": host,
            "Content-Type": one.media_type,
            "x-amz-content-sha256": digest,
            "x-amz-date": f"{moment:%Y%m%dT%H%M%SZ}",
        }
        signed["Authorization"] = authorization(
            method="PUT",
            path=path,
            headers=signed,
            payload_sha256=digest,
            access_key=target.access_key,
            secret_key=secret,
            region=target.region,
            moment=moment,
        )
        url = server._replace(path=path).geturl()
        guard.request("PUT", url, signed, one.body, allow_private=target.allow_private, timeout_s=timeout_s)
