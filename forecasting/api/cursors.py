"""Where a subscriber of a graph stands, as the id of its last event: enough to go on in any process, at any time.

The store numbers the revisions of each step, and has no order of all changes. A cursor therefore holds the revisions of
the last steps that were sent, and the events of all steps before: every revision brings events, so that an older step
which was revised shows in their sum.
"""

import re
from dataclasses import dataclass, field
from itertools import groupby

# Steps whose revisions are told one by one.
WINDOW_STEPS = 512
_MAX_CHARS = 8192
_RUN = r"\d{1,9}(?:x\d{1,4})?"
_TEXT = re.compile(rf"1\.(-?\d{{1,18}})\.(\d{{1,18}})\.((?:{_RUN}(?:,{_RUN})*)?)\.([0-9a-f]{{0,16}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a subscriber has received; a value.

    Attributes:
        start_us: start of the first step whose revision is held.
        older_events: events of all steps before that.
        revisions: revisions of the steps from `start_us` on, as they were sent.
        forecast: digits that tell the forecast sent last; "" for none.
    """

    start_us: int
    older_events: int
    revisions: tuple[int, ...] = field(default=())
    forecast: str = ""

    def __str__(self) -> str:
        """Return the cursor as the id of an event: digits and punctuation of ASCII, without blanks."""
        runs = ((revision, sum(1 for _ in same)) for revision, same in groupby(self.revisions))
        told = ",".join(f"{revision}x{n}" if n > 1 else f"{revision}" for revision, n in runs)
        return f"1.{self.start_us}.{self.older_events}.{told}.{self.forecast}"

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """Return the cursor that a text stands for; None if it is none of ours."""
        match = _TEXT.fullmatch(text) if len(text) <= _MAX_CHARS else None
        if match is None:
            return None
        revisions: list[int] = []
        for run in filter(None, match[3].split(",")):
            revision, _, n = run.partition("x")
            if len(revisions) + int(n or 1) > WINDOW_STEPS:
                return None
            revisions += [int(revision)] * int(n or 1)
        return cls(int(match[1]), int(match[2]), tuple(revisions), match[4])
