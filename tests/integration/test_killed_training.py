"""`graphtide train`, killed while steps go on to close: the same command goes on with the steps that it began with."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.steps import DAY_US
from models.optimisation import Optimisation
from stream.decoders.builder import DecodeOptions
from stream.ingest import IngestOptions, ingest
from stream.sources.files import FileSource
from tests.conftest import Ran

Cli = Callable[..., Ran]
URL = "sqlite:///store.db"
SMALL = {
    "GRAPHTIDE_STORE__URL": URL,
    "GRAPHTIDE_FORECASTER__D_MODEL": "16",
    "GRAPHTIDE_FORECASTER__N_LAYERS": "1",
    "GRAPHTIDE_TRAINING__TOKENS_PER_BATCH": "256",
    "GRAPHTIDE_TRAINING__VALIDATE_EVERY": "2",
}
ITERATIONS = 6
DAYS = 200
REPOSITORY = Path(__file__).parents[2]

# Runs the command line and dies as soon as the training of this graph is written for the first time.
_TRAIN_AND_DIE = """
import os, signal, sys
from forecasting.cli import main
from models.optimisation import Optimisation

graph, save = sys.argv.pop(1), Optimisation.save
def save_and_die(self, path, made_of):
    save(self, path, made_of)
    if path.parent.name == graph:
        os.kill(os.getpid(), signal.SIGKILL)
Optimisation.save = save_and_die
main()
"""


def add_days(graph: str, days: range, *, backfill: bool = False) -> None:
    """Let these days of a graph close, as events appended to its log; or put one event more into each."""
    log = Path(f"{graph}-late.ndjson" if backfill else f"{graph}.ndjson")
    with log.open("a") as file:
        for day in days:
            for event in range(1 if backfill else 3 + day % 7):
                line = {"src": f"n{day % 11}", "dst": f"n{event}", "ts": 1_600_000_000 + 86_400 * day + event}
                file.write(json.dumps(line) + "\n")
    ingest(FileSource(log, DecodeOptions(graph=graph)), URL, IngestOptions(step_us=DAY_US, backfill=backfill))


def train_and_be_killed(graph: str, *graphs: str) -> None:
    """Train, and be killed at the first validation of `graph`."""
    command = [sys.executable, "-c", _TRAIN_AND_DIE, graph, "train", *graphs, "--iterations", str(ITERATIONS)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-3000:]
    assert Path(f".graphtide/models/{graph}/training.pt").exists()


@pytest.fixture(autouse=True)
def small(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def iterations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of the iterations that are taken in this process, by their number in their training."""
    taken: list[int] = []
    iterate = Optimisation.iterate

    def counted(self: Optimisation) -> None:
        taken.append(self.iteration)
        iterate(self)

    monkeypatch.setattr(Optimisation, "iterate", counted)
    return taken


def trained(ran: Ran) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    return list(json.loads(ran.out))


def undisturbed(graphtide: Cli, graph: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the card of a training on the steps of now that nothing disturbed."""
    with monkeypatch.context() as patched:
        patched.setenv("GRAPHTIDE_MODELS__DIRECTORY", "undisturbed")
        (card,) = trained(graphtide("train", graph, "--iterations", ITERATIONS, "--restart", "--json"))
    return card


def test_it_goes_on_with_its_steps_and_the_next_training_has_the_later_ones(
    graphtide: Cli, iterations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_days("town", range(DAYS))
    wanted = undisturbed(graphtide, "town", monkeypatch)
    train_and_be_killed("town", "town")
    add_days("town", range(DAYS, DAYS + 5))
    iterations.clear()
    ran = graphtide("train", "town", "--iterations", ITERATIONS, "--json")
    (card,) = trained(ran)
    assert iterations == [2, 3, 4, 5]
    assert (card["digest"], card["data"]) == (wanted["digest"], wanted["data"])
    assert (card["calibration"], card["ranks"]) == (wanted["calibration"], wanted["ranks"])
    until = wanted["data"][0]["until"]
    assert f"town: goes on where a training was killed, with its 200 steps until {until}; 5 steps that" in ran.err
    assert f"town: trained until {until}; 6 iterations" in ran.err
    # What closed since is in the next one, which nothing is left to go on from.
    iterations.clear()
    again = graphtide("train", "town", "--iterations", ITERATIONS, "--json")
    assert trained(again)[0]["data"][0]["steps"] == DAYS + 5
    assert "was killed" not in again.err
    assert iterations == list(range(ITERATIONS))


def late_event() -> None:
    add_days("town", range(100, 101), backfill=True)


def many_days() -> None:
    # One more than a season.
    add_days("town", range(DAYS, DAYS + 8))


@pytest.mark.parametrize(
    ("meanwhile", "options", "said"),
    [
        (late_event, (), "its steps until 2021-04-01T00:00:00Z have changed since, as late events change them"),
        (many_days, (), "8 steps have closed since it began, over the 7 that it may miss"),
        (lambda: None, ("--seed", 1), "it had other options or another general model"),
        (lambda: None, ("--restart",), ""),
    ],
)
def test_it_begins_anew_and_says_why(
    meanwhile: Callable[[], None], options: tuple[object, ...], said: str, graphtide: Cli, iterations: list[int]
) -> None:
    add_days("town", range(DAYS))
    train_and_be_killed("town", "town")
    meanwhile()
    ran = graphtide("train", "town", "--iterations", ITERATIONS, *options, "--json")
    (card,) = trained(ran)
    assert iterations == list(range(ITERATIONS))
    steps = DAYS + 8 if meanwhile is many_days else DAYS
    assert card["data"][0]["steps"] == steps
    if said:
        assert f"town: begins anew with all {steps} steps, not where a training was killed: {said}" in ran.err
    else:
        assert "was killed" not in ran.err
    assert not Path(".graphtide/models/town/training.pt").exists()


def test_of_many_graphs_the_one_that_was_under_way_comes_first_and_the_finished_ones_last(graphtide: Cli) -> None:
    for graph in ("ash", "elm", "oak"):
        add_days(graph, range(DAYS))
    train_and_be_killed("elm")
    for graph in ("ash", "elm", "oak"):
        add_days(graph, range(DAYS, DAYS + 3))
    ran = graphtide("train", "--iterations", ITERATIONS, "--json")
    cards = trained(ran)
    assert [card["data"][0]["graph"] for card in cards] == ["ash", "elm", "oak"]
    assert [card["data"][0]["steps"] for card in cards] == [DAYS + 3, DAYS, DAYS + 3]
    places = [ran.err.index(f"{graph}: trained until") for graph in ("elm", "oak", "ash")]
    assert places == sorted(places)
