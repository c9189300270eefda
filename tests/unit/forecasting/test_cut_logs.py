"""A log that was cut off in the middle of a step: who ingests it is told, and can leave the step open."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forecasting.cut_logs import looks_cut_off
from infra.steps import format_time
from tests.conftest import Ran

Cli = Callable[..., Ran]
DAY, PER_DAY, DAYS = 86_400, 24, 7
MIDNIGHT = 1_767_225_600


@pytest.mark.parametrize(
    ("events", "silent_share", "expected"),
    [
        ([100, 90, 120, 110, 40], 0.6, True),
        ([100, 90, 120, 110, 89], 0.1, True),
        ([100, 90, 120, 110, 90], 0.6, False),  # as much as there was before: active in a part of each step
        ([100, 90, 120, 40], 0.6, False),  # too few to judge by
        ([6, 9, 7, 8, 1], 0.6, False),  # 3.6 would have come
        ([100, 0, 120, 110, 0], 0.6, False),
    ],
)
def test_a_step_looks_cut_off_where_silence_cannot_be_luck(
    events: list[float], silent_share: float, expected: bool
) -> None:
    assert looks_cut_off(events, silent_share) is expected


def write_log(path: Path, n_events: int, every_s: int = DAY // PER_DAY) -> None:
    """Write events that come in the same distance each, from midnight on."""
    path.write_text("".join(f"n{n % 5} n{n % 3} {MIDNIGHT + n * every_s}\n" for n in range(n_events)))


def test_it_is_told_and_the_step_can_stay_open(graphtide: Cli) -> None:
    log = Path("log.txt")
    write_log(log, DAYS * PER_DAY + 9)
    last = format_time((MIDNIGHT + DAYS * DAY) * 1_000_000)
    ran = graphtide("ingest", log, "--step", "1d", "--json", "--store", "sqlite:///closed.db")
    assert f"note: the last step of graph 'default', {last}, has 9 events, fewer than each of the 7" in ran.err
    assert "none in its last 67%." in ran.err
    assert "--no-close-at-end" in ran.err
    ran = graphtide("ingest", log, "--step", "1d", "--json", "--no-close-at-end", "--store", "sqlite:///open.db")
    assert "the last step of graph" not in ran.err
    (graph,) = json.loads(ran.out)["graphs"]
    assert (graph["snapshots"], graph["events"]) == (DAYS, DAYS * PER_DAY)
    # Once the log has grown up to the end of that day nothing is left to tell.
    write_log(log, (DAYS + 1) * PER_DAY)
    for store, revisions in (("sqlite:///open.db", 0), ("sqlite:///closed.db", 1)):
        ran = graphtide("ingest", log, "--step", "1d", "--json", "--store", store)
        assert "the last step of graph" not in ran.err
        summary = json.loads(ran.out)
        assert (summary["graphs"][0]["events"], summary["revisions"]) == ((DAYS + 1) * PER_DAY, revisions)


def test_a_whole_last_step_is_not_told(graphtide: Cli) -> None:
    write_log(Path("log.txt"), DAYS * PER_DAY)
    assert "the last step of graph" not in graphtide("ingest", "log.txt", "--step", "1d").err


@pytest.mark.parametrize("flag", ["--close-at-end", "--no-close-at-end"])
def test_what_is_followed_has_no_end(graphtide: Cli, flag: str) -> None:
    write_log(Path("log.txt"), 5)
    ran = graphtide("ingest", "log.txt", "--follow", flag)
    assert ran.code == 2
    assert "--close-at-end needs an end" in ran.err
