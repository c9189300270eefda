"""What many runs come to: how many, how large, how faulty, and how long they took."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulator.faults import Kind
from tests.simulator.run import Outcome


@dataclass
class Tally:
    """Counts outcomes.

    Attributes:
        runs, failed: how many runs there were, and how many of them came to something wrong.
        records: in their logs.
        commits: transactions that took effect.
        faults: how often each fault struck.
        fewest_records, fewest_faults: of any run.
    """

    runs: int = 0
    failed: int = 0
    records: int = 0
    commits: int = 0
    faults: Counter[Kind] = field(default_factory=Counter)
    fewest_records: int = 2**62
    fewest_faults: int = 2**62
    _began_s: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count a run."""
        self.runs += 1
        self.failed += outcome.problem is not None
        self.records += outcome.events
        self.commits += outcome.commits
        self.faults.update(outcome.struck)
        self.fewest_records = min(self.fewest_records, outcome.events)
        self.fewest_faults = min(self.fewest_faults, outcome.faults)

    @property
    def seconds(self) -> float:
        """How long it has taken since the tally began."""
        return time.monotonic() - self._began_s

    def text(self) -> str:
        """Return it in words."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.faults.items()))
        return (
            f"{self.runs:,} runs, {self.failed} failed; {self.records:,} records, {self.commits:,} commits,"
            f" {self.faults.total():,} faults ({kinds}); {self.seconds:.1f} s"
        )
