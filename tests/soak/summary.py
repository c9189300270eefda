"""The figures of a fault run as rows, as those of every benchmark."""

from collections.abc import Mapping
from typing import Any


def rows_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a figure: `case, system, value, unit`."""
    answered = sum(count for counts in found["requests"].values() for count in counts.values())
    happened = [fault for fault in found["faults"] if "skipped" not in fault]
    trends = [process["mb_per_hour"] for process in found["memory"] if "mb_per_hour" in process]
    figures = [
        ("load", found["seconds"], "s"),
        ("answers", answered, "answers"),
        ("malformed-requests", found["malformed"], "requests"),
        ("faults", len(happened), "faults"),
        ("announced-refusals", sum(found["announced_refusals"].values()), "answers"),
        ("broken-connections", sum(found["broken_connections"].values()), "requests"),
        *((f"{name}-compared", count, name) for name, count in found["compared"].items()),
        ("violations", len(found["violations"]), "violations"),
    ]
    if trends:
        figures.append(("memory-trend", max(0.0, *trends), "MB an hour"))
    return [{"case": case, "system": "graphtide", "value": value, "unit": unit} for case, value, unit in figures]
