"""What a backtest saw when it began, until it has ended: run again, it goes on with these steps though the graphs grew.

Parts and trainings are kept by the steps that they are of, so a plan that moved on by a step would find none of them.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecasting.backtests.kept import KEPT_DAYS
from forecasting.training import describe
from infra.file_lock import file_lock_if_free
from infra.whole_file import whole_file
from models.contract import History

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of one command, in a file that is there while the command has not ended.

    Attributes:
        path: the file; it is named by a digest of what was asked.
    """

    path: Path

    @classmethod
    def of(cls, folder: Path, asked: Any) -> "Begun":
        """Return the beginning of a command.

        Args:
            folder: where beginnings are.
            asked: JSON values; the same command asks the same.
        """
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return cls(folder / f"{digest[:32]}{_SUFFIX}")

    @contextmanager
    def alone(self) -> Iterator["Begun | None"]:
        """Yield it for the length of the command; None where another process runs the same command now.

        That one has not ended: it needs the file itself.

        Raises:
            GraphtideError: the folder cannot be written to.
        """
        with file_lock_if_free(self.path.with_suffix(".lock")) as is_ours:
            yield self if is_ours else None

    def seen(self, histories: Mapping[str, History]) -> dict[str, History]:
        """Return the histories as the command that began saw them; all steps of those that it did not see like this.

        What a training sees has to be the same still: from others, nothing that was kept could be used.
        """
        begun = self._read()
        found = {}
        for graph, history in histories.items():
            found[graph] = history
            steps, past = begun.get(graph, (0, {}))
            if past and past["steps"] < steps <= len(history):
                is_same = describe(history.part(0, past["steps"]), graph) == past
                found[graph] = history.part(0, steps) if is_same else history
        return found

    def write(self, histories: Mapping[str, History], first_origins: Mapping[str, int]) -> None:
        """Keep what the command sees, in the place of what it saw before.

        Args:
            histories: by graph, all steps that it sees.
            first_origins: by graph, how many of them lie before the first origin.

        Raises:
            GraphtideError: the file cannot be written.
        """
        said = {
            graph: [len(history), describe(history.part(0, first_origins[graph]), graph)]
            for graph, history in histories.items()
        }
        with whole_file(self.path) as temporary:
            temporary.write_text(json.dumps(said), encoding="utf-8")

    def end(self) -> None:
        """Forget it: the command did what it had to, and begins with the newest steps when it is run again.

        Forgets others too whose parts are not kept any more.
        """
        self.path.unlink(missing_ok=True)
        oldest_s = time.time() - KEPT_DAYS * 86_400
        for path in self.path.parent.glob(f"*{_SUFFIX}"):
            try:
                if path.stat().st_mtime < oldest_s:
                    path.unlink()
            except FileNotFoundError:
                continue

    def _read(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Return by graph how many steps were seen, and what describes those before the first origin."""
        try:
            if time.time() - self.path.stat().st_mtime > KEPT_DAYS * 86_400:
                return {}
            said = json.loads(self.path.read_text(encoding="utf-8"))
            return {graph: (int(steps), {**past, "steps": int(past["steps"])}) for graph, (steps, past) in said.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # None, or one that is damaged: the command begins anew.
            return {}
