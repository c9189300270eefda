"""The page over the reports of many graphs, what stands out first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from forecasting.reports.phrases import number
from forecasting.reports.rendering import template


@dataclass(frozen=True, slots=True)
class Entry:
    """A graph in the index: its report's file, how much its events change, how much of the last forecast came true."""

    graph: str
    file: str
    until: str
    now: float | None
    then: float | None
    agreement: float | None
    in_80: float | None
    sentence: str
    is_simple: bool

    @property
    def outlyingness(self) -> float:
        """How far the events move, as the size of a log ratio; unlimited where they begin or end at nothing."""
        if self.now is None or self.then is None or self.now == self.then:
            return 0.0
        if min(self.now, self.then) <= 0:
            return math.inf
        return abs(math.log(self.then / self.now))


def entry(facts: Mapping[str, Any], file: str) -> Entry:
    """Return what the index says of a report."""
    events = next((row for row in facts["changes"]["rows"] if row["column"] == "events"), None)
    past = next((row for row in facts["past"]["scores"] if row["metric"] == "events"), None)
    agreement = None
    # Paths that stay where they are lie on no side.
    if events is not None and events["direction"] != "stays":
        agreement = max(events["above"], 1 - events["above"])
    return Entry(
        graph=facts["graph"],
        file=file,
        until=facts["until"],
        now=None if events is None else events["now"],
        then=None if events is None else events["then"],
        agreement=agreement,
        in_80=None if past is None else past["in_80"],
        sentence=facts["summary"][0],
        is_simple=facts["provenance"]["model_digest"] is None,
    )


def render_index(entries: Sequence[Entry], made: str) -> str:
    """Return the index as one HTML page that links to the files beside it; what changes most comes first."""
    ranked = sorted(entries, key=lambda one: (-one.outlyingness, one.graph))
    return template("index.html").render(entries=ranked, made=made, version=version("graphtide"), number=number)
