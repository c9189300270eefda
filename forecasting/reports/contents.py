"""What a report is asked for, and all that it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forecasting.reports.aggregate import PeriodFan, Periods
from forecasting.reports.calendar import Scale
from forecasting.reports.findings import Change, Move, PastScore, Quality, Skill


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What is asked for.

    Attributes:
        horizon: steps ahead.
        seed: seed of the sample paths; the same seed on the same data gives the same report.
        paths: number of sample paths.
    """

    horizon: int
    seed: int
    paths: int


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a report says, beside the page's forecast.

    Attributes:
        observed, ahead: whole periods by scale, the shortest scale first.
        changes_scale: the scale of the changes; None where no period can be compared.
        past_from: when the forecast that is scored was made; None without one.
        past_moves: what the last report and this one both forecast.
    """

    graph: str
    request: ReportRequest
    provenance: Mapping[str, Any]
    step_us: int
    history_short: bool
    observed: Mapping[Scale, Periods]
    ahead: Mapping[Scale, PeriodFan]
    changes_scale: Scale | None
    changes: list[Change]
    skill: Skill | None
    quality: Quality
    past_from: str | None
    past: list[PastScore]
    past_moves: list[Move]
