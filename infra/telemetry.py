"""Telemetry: where log lines go and how they look. Lines go to stderr, so that stdout carries results only."""

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO


class _PlainFormatter(logging.Formatter):
    """One line a record: `2026-01-31T12:00:00Z warning stream.ingest: message`."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its time in UTC before it."""
        shown = logging.makeLogRecord(record.__dict__)
        shown.levelname = record.levelname.lower()
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"{time} {super().format(shown)}"


def configure_logging(level: int, *, stream: TextIO | None = None) -> None:
    """Send records of `level` and above to `stream` (stderr), replacing what was configured before.

    Args:
        level: a level of the `logging` module.
        stream: where lines go; None is the standard error of the process at this moment.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_PlainFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Its lines hold whole addresses, with the passwords and the secret paths in them.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Python's own warnings would otherwise mix bare text into the lines.
    logging.captureWarnings(capture=True)
