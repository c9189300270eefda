"""Which steps a training uses: all of them, or those of one that was killed, if it goes on.

On a live graph steps close while a training runs. One that was killed goes on with the steps that it began with: a
model of these is there soon, and the next training has the later ones.
"""

from dataclasses import dataclass
from pathlib import Path

from forecasting.training import RESUME_NAME
from infra.steps import format_time
from models.checkpoint import Checkpoint
from models.contract import History
from models.forecaster import ForecasterConfig
from models.optimisation import TrainingConfig
from models.seasons import season_steps
from models.training import made_of, series_of
from models.unfinished import read_made_of

# A training that was killed goes on while at most this share of its steps has closed since, and a season at most. Of
# more, the model would know too little for the time that is saved.
MOST_MISSED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that a training uses.

    Attributes:
        history: they themselves.
        goes_on: a training that was killed goes on with them.
        told: what to say of a training that was killed; empty where there was none.
    """

    history: History
    goes_on: bool = False
    told: str = ""


def steps_to_train_on(
    history: History, folder: Path, forecaster: ForecasterConfig, config: TrainingConfig, start: Checkpoint | None
) -> Steps:
    """Return the steps of a training that was killed if it can go on, else all.

    Args:
        history: all steps of the graph.
        folder: of its checkpoint.
        forecaster, config, start: as `train_graph` takes them.
    """
    path = folder / RESUME_NAME
    if not path.exists():
        return Steps(history)
    found = read_made_of(path)
    if found is None:
        return _anew(history, "its file cannot be read")
    until = format_time(found.until_us)
    used = _until(history, found.until_us)
    made = made_of(
        series_of([history if used is None else used], config),
        forecaster,
        config,
        start=None if start is None else start.net,
    )
    if found.options != made.options:
        return _anew(history, "it had other options or another general model")
    if used is None or found != made:
        return _anew(history, f"its steps until {until} have changed since, as late events change them")
    later, most = len(history) - len(used), most_missed(used)
    if later > most:
        return _anew(history, f"{later:,} steps have closed since it began, over the {most:,} that it may miss")
    left = f"; {later:,} steps that have closed since are left to the next training" if later else ""
    return Steps(used, True, f"goes on where a training was killed, with its {len(used):,} steps until {until}{left}")


def most_missed(history: History) -> int:
    """Return how many steps may have closed behind those of a training that goes on."""
    return min(int(MOST_MISSED_SHARE * len(history)), season_steps(history.step_us))


def forget(folder: Path) -> None:
    """Let the next training that is kept in `folder` begin anew."""
    (folder / RESUME_NAME).unlink(missing_ok=True)


def _until(history: History, until_us: int) -> History | None:
    """Return the steps until this time; None if the history does not reach it, or begins later."""
    steps = (until_us - history.start_us) // history.step_us
    return history.part(0, steps) if 0 < steps <= len(history) else None


def _anew(history: History, why: str) -> Steps:
    return Steps(history, told=f"begins anew with all {len(history):,} steps, not where a training was killed: {why}")
