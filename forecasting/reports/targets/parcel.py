"""What is delivered, in the shapes that targets need: files, a notice for programs, a message for people."""

import hashlib
from dataclasses import dataclass
from typing import Any

from forecasting.reports.records import ReportRow
from infra.steps import format_time


@dataclass(frozen=True, slots=True)
class ParcelFile:
    """A file: the suffix of its name, what is in it, its media type, and whether it goes along with a mail."""

    suffix: str
    body: bytes
    media_type: str
    is_attached: bool = False


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something on its way.

    Attributes:
        key: the idempotency key: the same however often it is sent.
        stem: file name without suffix; the same however often it is sent, and that of nothing else.
        subject, text: of a message.
        files: in the order in which they are written.
        notice: what a program is told.
    """

    key: str
    stem: str
    subject: str
    text: str
    files: tuple[ParcelFile, ...]
    notice: dict[str, Any]


def report_parcel(key: str, report: ReportRow, html: bytes, bundle: bytes) -> Parcel:
    """Return a finished report as a parcel; its name is that of a schedule's slot."""
    moment = format_time(report.slot_us if report.slot_us is not None else report.created_us)
    # Hyphens join what may itself have some, and colons go: the digest tells apart what reads alike then.
    digest = hashlib.sha256(f"{report.graph} {report.schedule or report.id}".encode()).hexdigest()[:8]
    stem = f"{report.graph}-{report.schedule or report.id[:12]}-{moment}-{digest}".replace(":", "")
    return Parcel(
        key=key,
        stem=stem,
        subject=f"Report on {report.graph}",
        text="\n\n".join(report.summary),
        files=(
            ParcelFile(".zip", bundle, "application/zip"),
            ParcelFile(".html", html, "text/html; charset=utf-8", is_attached=True),
        ),
        notice={
            "type": "graphtide.report",
            "id": report.id,
            "graph": report.graph,
            "schedule": report.schedule,
            "slot": None if report.slot_us is None else format_time(report.slot_us),
            "observed_until": None if report.observed_until_us is None else format_time(report.observed_until_us),
            "horizon": report.request.horizon,
            "summary": list(report.summary),
            "links": {"self": f"/v1/reports/{report.id}"},
        },
    )
