"""The simulated source: the contract of a source, reproducibility, and the properties of a social network."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import GraphtideError, InputError, UsageError
from infra.steps import DAY_US, HOUR_US
from stream.simulation.actors import EVENT_TYPES, Actors
from stream.simulation.times import Occurrences, simulate_times
from stream.snapshots import step_metrics
from stream.sources.simulate import SimulatedSource, SimulationConfig

SMALL = SimulationConfig(seed=7, years=0.02)
YEAR = SimulationConfig(seed=11, years=1)
Rows = list[tuple[str, str, str, int]]


def rows_of(source: SimulatedSource, resume_after: dict[str, int | str | bool] | None = None) -> Rows:
    rows: Rows = []
    for batch in source.batches(resume_after):
        names = batch.events.interner.names
        columns = (batch.events.type, batch.events.src, batch.events.dst, batch.events.ts_us)
        rows += [
            (names[kind], names[src], names[dst], ts)
            for kind, src, dst, ts in zip(*(column.tolist() for column in columns), strict=True)
        ]
    return rows


@cache
def year() -> tuple[Occurrences, Actors]:
    occurrences = simulate_times(YEAR)
    actors = Actors(YEAR)
    actors.extend(occurrences.parent)
    return occurrences, actors


def ends() -> tuple[np.ndarray, np.ndarray]:
    _, actors = year()
    return np.array(actors.src), np.array(actors.dst)


def hourly_counts() -> np.ndarray:
    occurrences, _ = year()
    return np.bincount((occurrences.ts_us - YEAR.start_us) // HOUR_US, minlength=YEAR.hours).astype(float)


def autocorrelation(series: np.ndarray, lag: int) -> float:
    centred = series - series.mean()
    return float((centred[:-lag] * centred[lag:]).sum() / (centred**2).sum())


# The contract of a source.


def test_events_come_in_time_order_with_one_end() -> None:
    source = SimulatedSource(replace(YEAR, years=0.3), graph="town")
    batches = list(source.batches(None))
    assert len(batches) > 2
    assert [batch.end for batch in batches] == [False] * (len(batches) - 1) + [True]
    times = np.concatenate([batch.events.ts_us for batch in batches])
    assert np.all(np.diff(times) >= 0)
    assert np.all(times % 1_000_000 == 0)
    assert times[0] >= YEAR.start_us
    assert times[-1] < YEAR.start_us + source.config.hours * HOUR_US
    names = batches[0].events.interner.names
    assert {names[code] for batch in batches for code in np.unique(batch.events.graph)} == {"town"}
    assert {names[code] for batch in batches for code in np.unique(batch.events.type)} == set(EVENT_TYPES)


def test_resuming_gives_exactly_the_rest() -> None:
    source = SimulatedSource(replace(SMALL, years=0.25))
    whole = rows_of(source)
    assert len(whole) > 40_000
    for done in (0, 1, 19_999, 20_000, 20_001, 35_000, len(whole) - 1, len(whole)):
        assert rows_of(source, {"events": done}) == whole[done:]
    last = list(source.batches({"events": len(whole)}))
    assert [(len(batch.events), batch.end) for batch in last] == [(0, True)]


def test_positions_are_the_events_handed_over() -> None:
    handed_over = 0
    for batch in SimulatedSource(replace(SMALL, years=0.25)).batches(None):
        handed_over += len(batch.events)
        assert batch.position == {"events": handed_over}


@pytest.mark.parametrize("position", [{}, {"events": -1}, {"events": 10**9}, {"events": "3"}, {"events": True}])
def test_a_foreign_position_is_refused(position: dict[str, int | str | bool]) -> None:
    with pytest.raises(InputError, match="cannot go on after"):
        next(iter(SimulatedSource(SMALL).batches(position)))


def test_the_name_tells_parameters_and_graphs_apart() -> None:
    sources = [
        SimulatedSource(SMALL),
        SimulatedSource(replace(SMALL, seed=8)),
        SimulatedSource(replace(SMALL, join_share=0.06)),
        SimulatedSource(SMALL, graph="other"),
    ]
    assert len({source.name for source in sources}) == len(sources)
    assert SimulatedSource(replace(SMALL)).name == sources[0].name


# Reproducibility.


def test_the_same_seed_gives_the_same_bytes_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "out" / "events.ndjson"
    written = SimulatedSource(SMALL, graph="town").write_ndjson(path)
    data = path.read_bytes()
    assert data.count(b"\n") == written == 3174
    # Frozen: a change here changes everyone's simulated data and needs a line in the change log.
    assert hashlib.sha256(data).hexdigest() == "384e25522b4e0206ffd65ff66b9e5148c7979afd31ca70bd26502cb4d5e0ad5e"


def test_another_seed_gives_other_events() -> None:
    assert rows_of(SimulatedSource(SMALL)) != rows_of(SimulatedSource(replace(SMALL, seed=8)))


def test_ndjson_holds_the_events(tmp_path: Path) -> None:
    source = SimulatedSource(SMALL, graph="town")
    source.write_ndjson(tmp_path / "events.ndjson")
    read: Rows = []
    for line in (tmp_path / "events.ndjson").read_text().splitlines():
        record = json.loads(line)
        moment = datetime.fromisoformat(record["ts"].replace("Z", "+00:00"))
        ts_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        assert record.keys() == {"graph", "type", "src", "dst", "ts"}
        assert record["graph"] == "town"
        read.append((record["type"], record["src"], record["dst"], ts_us))
    assert read == rows_of(source)


def test_ndjson_to_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GraphtideError, match="cannot write"):
        SimulatedSource(SMALL).write_ndjson(tmp_path / "file" / "events.ndjson")


# Parameters.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("years", 0),
        ("years", float("nan")),
        ("years", 201),
        ("start_us", 1),
        ("events_per_hour", 0),
        ("branching", 1.0),
        ("virality", 1.0),
        ("yearly_swing", 1),
        ("initial_users", 1),
        ("communities", 0),
        ("community_share", 0.6),
    ],
)
def test_a_parameter_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        replace(SMALL, **{name: value})


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**63 - 1),
    hours=st.integers(1, 60),
    rate=st.floats(0.001, 60),
    branching=st.sampled_from([0.0, 0.3, 0.9]),
    join_share=st.sampled_from([0.0, 0.05, 1.0]),
    communities=st.integers(1, 5),
    community_share=st.sampled_from([0.0, 0.5]),
    users=st.integers(2, 6),
    attention_sd=st.sampled_from([0.0, 1.0]),
)
def test_any_parameters_give_a_valid_log(
    seed: int,
    hours: int,
    rate: float,
    branching: float,
    join_share: float,
    communities: int,
    community_share: float,
    users: int,
    attention_sd: float,
) -> None:
    config = SimulationConfig(
        seed=seed,
        years=hours / 8766,
        events_per_hour=rate,
        branching=branching,
        join_share=join_share,
        communities=communities,
        community_share=community_share,
        initial_users=users,
        attention_sd=attention_sd,
    )
    occurrences = simulate_times(config)
    n = len(occurrences)
    assert np.all(np.diff(occurrences.ts_us) >= 0)
    assert np.all(occurrences.parent < np.arange(n))
    assert np.all(occurrences.parent >= -1)
    assert branching > 0 or np.all(occurrences.parent == -1)
    actors = Actors(config)
    actors.extend(occurrences.parent)
    src, dst, kind = np.array(actors.src), np.array(actors.dst), np.array(actors.kind)
    assert len(src) == len(dst) == len(kind) == n
    if n:
        assert 0 <= min(src.min(), dst.min()) <= max(src.max(), dst.max()) < actors.n_users
    # Only a response can be to oneself.
    assert np.all(occurrences.parent[src == dst] >= 0)


def test_cutting_the_events_into_calls_changes_nothing() -> None:
    parent = simulate_times(SMALL).parent
    whole, parts = Actors(SMALL), Actors(SMALL)
    whole.extend(parent)
    for begin in range(0, len(parent), 97):
        parts.extend(parent[begin : begin + 97])
    assert (whole.src, whole.dst, whole.kind) == (parts.src, parts.dst, parts.kind)


# When: the point process.


def test_rate_and_growth_are_as_configured() -> None:
    config = replace(YEAR, years=4, growth_per_year=0.3, attention_sd=0.1)
    counts = np.bincount((simulate_times(config).ts_us - config.start_us) // (HOUR_US * 8766), minlength=4)
    expected = 20 * 8766 * (1.3 - 1) / np.log(1.3) * 1.3 ** np.arange(4)
    np.testing.assert_allclose(counts, expected, rtol=0.08)


def test_the_branching_ratio_is_as_configured() -> None:
    for branching in (0.0, 0.3, 0.6):
        parent = simulate_times(replace(YEAR, branching=branching)).parent
        assert (parent >= 0).mean() == pytest.approx(branching, abs=0.02)


def test_responses_come_soon_and_have_a_long_tail() -> None:
    occurrences, _ = year()
    is_response = occurrences.parent >= 0
    delay_h = (occurrences.ts_us[is_response] - occurrences.ts_us[occurrences.parent[is_response]]) / HOUR_US
    assert np.median(delay_h) < 0.5
    assert 0.02 < (delay_h > 12).mean() < 0.2


def test_some_events_go_viral() -> None:
    occurrences, _ = year()
    direct = np.bincount(occurrences.parent[occurrences.parent >= 0], minlength=len(occurrences))
    # Poisson numbers of this mean would never reach 10.
    assert direct.max() >= 10
    assert direct.var() > 1.3 * direct.mean()


def test_hours_remember_days_and_weeks() -> None:
    counts = hourly_counts()
    assert autocorrelation(counts, 1) > 0.7
    assert autocorrelation(counts, 24) > 0.5
    assert autocorrelation(counts, 168) > 0.5
    assert autocorrelation(counts, 12) < 0
    days = counts[: 24 * 364].reshape(-1, 24).sum(axis=1)
    assert autocorrelation(days, 7) > autocorrelation(days, 3) + 0.1


def test_self_excitation_is_seen_beyond_the_rhythm() -> None:
    quiet = replace(YEAR, attention_sd=0, growth_per_year=0, yearly_swing=0)
    residual = {}
    for branching in (0.0, 0.6):
        occurrences = simulate_times(replace(quiet, branching=branching))
        counts = np.bincount((occurrences.ts_us - quiet.start_us) // HOUR_US, minlength=quiet.hours)
        weeks = counts[: 168 * 51].reshape(51, 168)
        expected = weeks.mean(axis=0)
        residual[branching] = ((weeks - expected) / np.sqrt(expected)).ravel()
    # Poisson counts around their mean have variance 1 and no memory.
    assert residual[0.0].var() == pytest.approx(1, abs=0.15)
    assert abs(autocorrelation(residual[0.0], 1)) < 0.1
    assert residual[0.6].var() > 1.5
    assert autocorrelation(residual[0.6], 1) > 0.15


def test_weekends_nights_and_holidays_are_quieter() -> None:
    counts = hourly_counts()
    days = counts[: 24 * 364].reshape(-1, 24)
    weekday = np.arange(364) % 7  # the log starts on a Monday
    ratio = days[weekday >= 5].mean() / days[weekday < 5].mean()
    assert ratio == pytest.approx(YEAR.weekend_activity, abs=0.08)
    assert days[:, 3].mean() < 0.4 * days[:, 15].mean()
    christmas = (datetime(2021, 12, 25, tzinfo=UTC) - datetime(2021, 1, 4, tzinfo=UTC)).days
    same_weekday = days[[christmas - 14, christmas - 7]].sum(axis=1).mean()
    assert days[christmas].sum() < 0.8 * same_weekday


# Who: the network.


def shuffled_within(step: np.ndarray, dst: np.ndarray, seed: int) -> np.ndarray:
    """Permute targets inside each step: in- and out-activity stay, everything else is chance."""
    order = np.argsort(step, kind="stable")
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(step)), step))
    result = np.empty_like(dst)
    result[order] = dst[shuffled]
    return result


@pytest.mark.parametrize("step_us", [HOUR_US, DAY_US])
def test_reciprocity_and_transitivity_exceed_chance(step_us: int) -> None:
    occurrences, _ = year()
    src, dst = ends()
    step = (occurrences.ts_us - YEAR.start_us) // step_us
    n_steps = int(step[-1]) + 1
    ones = np.ones_like(step)
    seen = step_metrics(step, src, dst, ones, n_steps)
    chance = step_metrics(step, src, shuffled_within(step, dst, 1), ones, n_steps)
    assert seen["reciprocity"].mean() > 5 * chance["reciprocity"].mean()
    assert seen["transitivity"].mean() > 2 * chance["transitivity"].mean()


def test_communities_keep_to_themselves() -> None:
    src, dst = ends()
    community = np.array(year()[1].community)
    inside = (community[src] == community[dst]).mean()
    chance = (community[src] == community[np.random.default_rng(2).permutation(dst)]).mean()
    assert inside > 3 * chance
    sizes = np.bincount(community, minlength=YEAR.communities)
    assert sizes.min() > 0
    assert sizes.max() > 3 * sizes.min()


def test_activity_and_attention_have_heavy_tails() -> None:
    src, dst = ends()
    n_users = year()[1].n_users
    for side in (src, dst):
        count = np.sort(np.bincount(side, minlength=n_users))[::-1]
        assert count[: n_users // 100].sum() > 0.15 * count.sum()
        assert count[0] < 0.1 * count.sum()
        assert np.median(count) < 0.5 * count.mean()


def test_newcomers_keep_arriving() -> None:
    src, dst = ends()
    _, first = np.unique(np.concatenate([src, dst]), return_index=True)
    arrival = np.sort(first % len(src))
    by_quarter = np.bincount(np.minimum(arrival * 4 // len(src), 3), minlength=4)
    assert by_quarter.min() > 500
    assert year()[1].n_users == pytest.approx(400 + 0.05 * 0.55 * len(src), rel=0.05)


def test_people_return_to_their_contacts() -> None:
    src, dst = ends()
    repeated = 1 - len(np.unique(src * 10**6 + dst)) / len(src)
    assert 0.3 < repeated < 0.8
