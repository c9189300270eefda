"""What is compared when the load of a fault run is over: answers, jobs, reports and events against the truth."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from forecasting.api.forecast import wanted_of
from forecasting.api.service import ROLLOUT_BLOCK_STEPS
from forecasting.api.short_forecasts import forecast_bytes
from forecasting.live import LiveState, LiveStates
from forecasting.rollouts import Rollouts
from infra.schema import MAX_PATHS, METRIC_INDEX, QUANTILE_LEVELS
from infra.settings import InfluxDBSettings, JobSettings
from stream.store import open_reader
from tests.soak.clients import HOUR_S, Clients
from tests.soak.ledger import Ledger
from tests.soak.world import GROWING, STILL, World

SHORT_MAX_STEPS = 168
# States of the graph that grows that are computed again.
MOST_STATES = 60
_MEDIAN = QUANTILE_LEVELS.index(0.5)


def check_all(world: World, clients: Clients, ledger: Ledger, patience_s: float) -> dict[str, Any]:
    """Compare everything; what is wrong becomes a violation. Return how much was compared."""
    with clients.client() as client:
        found = {
            "jobs": _jobs(client, clients, ledger, world, patience_s),
            "reports": _reports(client, clients, ledger, patience_s),
            "events": _events(client, world, clients, ledger, patience_s),
        }
    found["snapshots_in_influxdb"] = _influxdb(world, ledger, patience_s)
    found["short_answers"] = _short(world, clients, ledger)
    return found


def _until(patience_s: float, done: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.5)
    return True


def _states(world: World) -> LiveStates:
    return LiveStates(lambda: open_reader(world.store_url), world.service.folder / "models", max_graphs=2)


def _short(world: World, clients: Clients, ledger: Ledger) -> int:
    """Every answer is what the engine says from the state that it names."""
    compared = 0
    lives: dict[tuple[str, int], LiveState] = {}
    with _states(world) as states:
        for (graph, snapshots, query), answers in clients.seen.short.items():
            if (graph, snapshots) not in lives:
                if len(lives) >= MOST_STATES:
                    continue
                lives[graph, snapshots] = states.state_at(graph, snapshots)
            live = lives[graph, snapshots]
            rollouts = Rollouts(block_steps=ROLLOUT_BLOCK_STEPS, max_steps=SHORT_MAX_STEPS, keep=1)
            wanted = replace(wanted_of(graph, query, SHORT_MAX_STEPS, MAX_PATHS), seed=0)
            body = forecast_bytes(live, rollouts, wanted)
            expected = {(live.digest, hashlib.blake2b(body, digest_size=16).digest())}
            if answers != expected:
                ledger.violate(f"{graph} at {snapshots} snapshots, {query}: other bytes than the engine's")
            compared += len(answers)
    return compared


def _jobs(client: httpx.Client, clients: Clients, ledger: Ledger, world: World, patience_s: float) -> int:
    """Every job that was acknowledged is done, and has the engine's numbers, streamed or read whole."""
    with _states(world) as states:
        live = states.state_of(STILL)
    medians: dict[int, npt.NDArray[np.float64]] = {}
    longest = max((asked["horizon"] for asked, _ in clients.seen.jobs.values()), default=1)
    for job, (asked, streamed) in clients.seen.jobs.items():
        standing: dict[str, Any] = {}

        def ended(job: str = job, standing: dict[str, Any] = standing) -> bool:
            standing.update(client.get(f"/v1/forecasts/{job}").json())
            return standing.get("status") not in {"queued", "running"}

        if not _until(patience_s, ended) or standing["status"] != "done":
            ledger.violate(f"the job {job} is {standing.get('status')}: {standing.get('problem')}")
            continue
        seed = asked["seed"]
        if seed not in medians:
            chunk_steps = JobSettings().chunk_steps
            chunks = live.model.rollout(live.state, longest, chunk_steps=chunk_steps, seed=seed)
            medians[seed] = np.concatenate([chunk.quantiles[..., _MEDIAN] for chunk in chunks])
        whole = {
            one["name"]: one["quantiles"]["0.5"] for one in client.get(f"/v1/forecasts/{job}/result").json()["outputs"]
        }
        for name, values in whole.items():
            expected = medians[seed][: asked["horizon"], METRIC_INDEX[name]]
            if len(values) != len(expected) or not np.allclose(values, expected, rtol=1e-5, atol=1e-5):
                ledger.violate(f"the job {job} has other numbers of {name} than the engine")
        if streamed is not None and streamed != whole:
            ledger.violate(f"the job {job} was streamed with other numbers than its result has")
    return len(clients.seen.jobs)


def _reports(client: httpx.Client, clients: Clients, ledger: Ledger, patience_s: float) -> int:
    """Every report that was acknowledged is done."""
    for report in clients.seen.reports:
        standing: dict[str, Any] = {}

        def ended(report: str = report, standing: dict[str, Any] = standing) -> bool:
            standing.update(client.get(report, headers={"Accept": "application/json"}).json())
            return standing.get("status") not in {"queued", "running"}

        if not _until(patience_s, ended) or standing["status"] != "done":
            ledger.violate(f"the report {report} is {standing.get('status')}: {standing.get('problem')}")
    return len(clients.seen.reports)


def _events(client: httpx.Client, world: World, clients: Clients, ledger: Ledger, patience_s: float) -> int:
    """Every acknowledged event is in the snapshot of its hour, once."""
    sent = dict(clients.seen.events)
    if not sent:
        return 0
    # An event of a later hour closes those before it.
    clients.close_hour(client, max(sent) + 2)
    last_us = (clients.begin_s + max(sent) * HOUR_S) * 1_000_000

    def closed() -> bool:
        world.start_ingest()
        with open_reader(world.store_url) as reader:
            return any(info.name == GROWING and (info.last_step_us or 0) >= last_us for info in reader.graphs())

    if not _until(patience_s, closed):
        ledger.violate(f"the hour of the last events was not closed in {patience_s:.0f} s")
        return sum(sent.values())
    with open_reader(world.store_url) as reader:
        table = reader.snapshots(GROWING, metrics=("events",))
    hours = (table.step_start_us // 1_000_000 - clients.begin_s) // HOUR_S
    found = {int(hour): int(count) for hour, (count,) in zip(hours, table.values, strict=True) if hour <= max(sent)}
    for hour in sorted(set(sent) | set(found)):
        if sent.get(hour, 0) != found.get(hour, 0):
            ledger.violate(f"hour {hour}: {sent.get(hour, 0)} events were acknowledged, {found.get(hour, 0)} are there")
    return sum(sent.values())


def _influxdb(world: World, ledger: Ledger, patience_s: float) -> int:
    """The projection has caught up: the snapshots of the growing graph are those of the store."""
    database = world.database
    section = InfluxDBSettings(url=database.url, org=database.org, bucket=database.bucket, token=database.token)
    projected = f"influxdb://{database.url.removeprefix('http://')}/{database.org}/{database.bucket}"
    with open_reader(world.store_url) as reader:
        expected = reader.snapshots(GROWING) if any(info.name == GROWING for info in reader.graphs()) else None
    if expected is None:
        return 0

    def equal() -> bool:
        with open_reader(projected, section) as reader:
            if not any(info.name == GROWING for info in reader.graphs()):
                return False
            found = reader.snapshots(GROWING)
        return np.array_equal(found.values[: len(expected)], expected.values)

    if not _until(patience_s, equal):
        ledger.violate("InfluxDB has other snapshots than the store after it came back")
    return len(expected)
