"""Delivery to a webhook: a signed notice as JSON. The receiver checks the signature and remembers the idempotency key.

`Graphtide-Signature: t=<seconds>,v1=<hex>` is HMAC-SHA256 under the shared secret over `<seconds>.<body>`.
"""

import hashlib
import hmac
import json
import time

from forecasting.reports.targets import guard
from forecasting.reports.targets.parcel import Parcel
from forecasting.reports.targets.secret import read_secret
from infra.settings import TargetSettings


def signature(secret: str, time_s: int, body: bytes) -> str:
    """Return the value of the signature's header."""
    mac = hmac.new(secret.encode(), f"{time_s}.".encode() + body, hashlib.sha256)
    return f"t={time_s},v1={mac.hexdigest()}"


def send(parcel: Parcel, target: TargetSettings, timeout_s: float) -> None:
    """Send the notice.

    Raises:
        DeliveryError: it was not taken.
    """
    body = json.dumps(parcel.notice, sort_keys=True).encode()
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": parcel.key,
        "Graphtide-Signature": signature(read_secret(target.secret_file), int(time.time()), body),
        "User-Agent": "graphtide",
    }
    guard.request("POST", target.url, headers, body, allow_private=target.allow_private, timeout_s=timeout_s)
