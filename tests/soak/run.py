"""A fault run from its start to its summary."""

import random
import threading
import time
from pathlib import Path
from typing import Any

from forecasting.bench.http_load import percentile
from forecasting.bench.report import hardware
from tests.soak.checks import check_all
from tests.soak.clients import Clients
from tests.soak.faults import FAULTS
from tests.soak.ledger import Ledger
from tests.soak.memory import Memory
from tests.soak.world import World

# Between two faults, and of a fault: about so long.
PAUSE_S, FAULT_S = 6.0, 4.0
_LOOK_S = 0.1


def run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    pace: float = 0.3,
    malformed: int = 10_000,
    pause_s: float = PAUSE_S,
    fault_s: float = FAULT_S,
    patience_s: float = 300.0,
) -> dict[str, Any]:
    """Load the service for so long while faults happen, then compare.

    Args:
        folder: an empty folder.
        seconds: of load; every fault happens at least once, however short that is.
        seed: of all draws.
        pace: seconds between two requests of a client, about.
        malformed: malformed requests in all.
        pause_s: between two faults, about.
        fault_s: of a fault, about.
        patience_s: for everything to be caught up with when the load is over.

    Returns:
        What was done and found; `violations` is empty if all holds.
    """
    draw = random.Random(seed)
    with World(folder) as world:
        ledger = Ledger()
        clients, memory = Clients(world, ledger, seed=seed, pace=pace, malformed=malformed), Memory(world, ledger)
        memory.start()
        clients.start()
        loaded_s = ledger.now_s
        never = threading.Event()
        try:
            round_of: list[Any] = []
            happened = 0
            while ledger.now_s - loaded_s < seconds or happened < len(FAULTS):
                never.wait(draw.uniform(0.5, 1.5) * pause_s)
                if not round_of:
                    round_of = draw.sample(FAULTS, len(FAULTS))
                round_of.pop()(world, ledger, never, draw.uniform(0.5, 1.5) * fault_s)
                happened += 1
            _finish_nonsense(clients, never, patience_s)
        finally:
            clients.stop()
            memory.stop()
        loaded_for_s = ledger.now_s - loaded_s
        compared = check_all(world, clients, ledger, patience_s)
        health = _health(clients, ledger)
        log = world.log() if ledger.violations else ""
        grown = memory.summary()
    return {
        "seconds": round(loaded_for_s),
        "seed": seed,
        "hardware": (machine := hardware()) | {"threads": machine["cores"]},
        "faults": ledger.faults,
        "requests": {name: dict(sorted(counts.items())) for name, counts in sorted(ledger.statuses.items())},
        "malformed": clients.seen.malformed,
        "announced_refusals": dict(ledger.announced),
        "broken_connections": dict(ledger.broken),
        "latency_ms": {
            name: {f"p{percent}": round(percentile(values, percent), 1) for percent in (50, 99)}
            for name, values in sorted(ledger.latencies_ms.items())
            if values
        },
        "memory": grown,
        "compared": compared,
        "health": health,
        "violations": ledger.violations,
        "log": log,
    }


def _finish_nonsense(clients: Clients, never: threading.Event, patience_s: float) -> None:
    """Wait until all malformed requests are sent, within limits."""
    until_s = time.monotonic() + patience_s
    while clients.seen.malformed < clients.malformed and time.monotonic() < until_s:
        never.wait(_LOOK_S)


def _health(clients: Clients, ledger: Ledger) -> str:
    with clients.client() as client:
        response = client.get("/health")
    status = str(response.json()["status"])
    if status != "ok":
        ledger.violate(f"when all is over the service says: {response.text[:500]}")
    return status
