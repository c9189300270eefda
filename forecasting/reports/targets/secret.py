"""Secrets of targets: each in a file of its own, so that it stands neither in settings nor in a process list."""

from pathlib import Path

from forecasting.reports.deliveries import DeliveryError


def read_secret(path: str) -> str:
    """Return what stands in a file, without the blanks around it.

    Raises:
        DeliveryError: it cannot be read, or is empty.
    """
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"the secret file {path} cannot be read: {type(error).__name__}") from error
    if not secret:
        raise DeliveryError(f"the secret file {path} is empty")
    return secret
