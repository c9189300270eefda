"""What is delivered: a finished report under its idempotency key."""

from dataclasses import dataclass
from typing import Any

from forecasting.reports.records import ReportRow
from infra.steps import format_time


@dataclass(frozen=True, slots=True)
class Parcel:
    """A report on its way.

    Attributes:
        key: the idempotency key: the same however often it is sent.
        report: its row.
        html, bundle: the page and the data.
    """

    key: str
    report: ReportRow
    html: bytes
    bundle: bytes

    @property
    def stem(self) -> str:
        """Return the file name without suffix: the same for a schedule's slot, and that of no other."""
        report = self.report
        moment = format_time(report.slot_us if report.slot_us is not None else report.created_us)
        name = report.schedule or report.id[:12]
        return f"{report.graph}-{name}-{moment}".replace(":", "")

    def notice(self) -> dict[str, Any]:
        """Return what a program is told of it."""
        report = self.report
        return {
            "type": "graphtide.report",
            "id": report.id,
            "graph": report.graph,
            "schedule": report.schedule,
            "slot": None if report.slot_us is None else format_time(report.slot_us),
            "observed_until": None if report.observed_until_us is None else format_time(report.observed_until_us),
            "horizon": report.request.horizon,
            "summary": list(report.summary),
            "links": {"self": f"/v1/reports/{report.id}"},
        }
