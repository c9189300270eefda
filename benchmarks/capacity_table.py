"""Write the tables of docs/capacity.md anew from benchmarks/results/capacity.json.

    python benchmarks/capacity_table.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not that of the rates. Standard library only.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from write_tables import between

ROOT = Path(__file__).resolve().parents[1]
PAGE, RATES = ROOT / "docs" / "capacity.md", ROOT / "benchmarks" / "results" / "capacity.json"
DAY_S, YEAR_DAYS = 86_400, 365
EVENTS = (10**6, 10**7, 10**8, 10**9, 10**10)
GRAPHS = (10, 10**3, 10**4, 10**5, 10**6)


@dataclass(frozen=True)
class Assumptions:
    """What is not measured; prices are round figures of on-demand cloud machines, November 2026."""

    steps_a_day: int = 24
    forecasts_a_day: int = 24
    peak: float = 3.0
    utilisation: float = 0.6
    training_s: float = 150.0
    trainings_a_year: float = 12.0
    keep_days: int = 365
    core_month: float = 25.0
    gb_memory_month: float = 3.0
    gb_disk_month: float = 0.1


MEANING = {
    "steps_a_day": "steps of each graph a day",
    "forecasts_a_day": "forecasts of a week of hours that each graph is asked for a day",
    "peak": "load of the busiest hour, as a multiple of the mean",
    "utilisation": "share of a core that is meant to be busy at that peak",
    "training_s": "seconds of CPU of a training of a graph's own model, `[training] budget_s`",
    "trainings_a_year": "trainings of each graph a year; 0 where the general model answers",
    "keep_days": "days that edges and snapshots are kept",
    "core_month": "US dollars a core and month",
    "gb_memory_month": "US dollars a GB of memory and month",
    "gb_disk_month": "US dollars a GB of disk and month",
}


@dataclass(frozen=True)
class Need:
    """What a load takes; cores are whole."""

    cores: int
    memory_gb: float
    disk_gb: float
    month: float
    events_s_a_graph: float


def need(events: float, graphs: float, rates: dict[str, float], given: Assumptions) -> Need:
    """Return what `events` a day over `graphs` take.

    Ingestion and forecasts are sized for the peak, trainings are spread over the year. A core runs one process.
    """
    steps = graphs * given.steps_a_day
    ingest_s = (events * rates["event"] + steps * rates["snapshot"]) / 1e6
    forecast_s = (steps * rates["advance"] + graphs * given.forecasts_a_day * rates["forecast-168"]) / 1e6
    training_s = graphs * given.training_s * given.trainings_a_year / YEAR_DAYS
    busy = (given.peak * (ingest_s + forecast_s) + training_s) / DAY_S
    cores = max(2, math.ceil(busy / given.utilisation))
    memory = (cores * rates["process-bytes"] + graphs * rates["state-bytes"]) / 1e9
    disk = given.keep_days * (events * rates["event-bytes"] + steps * rates["snapshot-bytes"]) / 1e9
    month = cores * given.core_month + memory * given.gb_memory_month + disk * given.gb_disk_month
    return Need(cores, memory, disk, month, given.peak * events / graphs / DAY_S)


def tables(report: dict[str, object], given: Assumptions) -> dict[str, str]:
    """Return the tables by the name of their place on the page."""
    rows: list[dict[str, object]] = report["rows"]  # type: ignore[assignment]
    rates = {str(row["case"]): float(str(row["value"])) for row in rows}
    machine: dict[str, object] = report["hardware"]  # type: ignore[assignment]
    measured = [f"`{report['command']}` on {machine['cpu']}.", "", "| what | value | unit |", "|---|---|---|"]
    measured += [f"| {row['case']} | {_number(float(str(row['value'])))} | {row['unit']} |" for row in rows]
    assumed = ["| assumption | value | what it is |", "|---|---|---|"]
    assumed += [f"| {one.name} | {getattr(given, one.name):g} | {MEANING[one.name]} |" for one in fields(given)]
    head = ["events a day", "graphs", "events/s of a graph at the peak", "cores", "memory, GB", "disk, GB"]
    lines = [f"| {' | '.join([*head, 'US dollars a month'])} |", "|" + "---|" * 7]
    for events in EVENTS:
        for graphs in GRAPHS:
            found = need(events, graphs, rates, given)
            one_core = found.events_s_a_graph * rates["event"] / 1e6 > 1
            cells = [f"{found.events_s_a_graph:,.3g}{' (1)' if one_core else ''}", f"{found.cores:,}"]
            cells += [_number(value) for value in (found.memory_gb, found.disk_gb, found.month)]
            lines.append(f"| 10^{round(math.log10(events))} | {graphs:,} | {' | '.join(cells)} |")
    return {"rates": "\n".join(measured), "assumptions": "\n".join(assumed), "needs": "\n".join(lines)}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only tell whether the page is current")
    check = parser.parse_args().check
    page = text = PAGE.read_text(encoding="utf-8")
    for name, table in tables(json.loads(RATES.read_text(encoding="utf-8")), Assumptions()).items():
        text = between(text, name, table)
    if check:
        sys.exit(int(text != page))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
