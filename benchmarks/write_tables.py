"""Write the tables of docs/benchmarks.md and docs/accuracy.md anew from benchmarks/results/*.json.

    python benchmarks/write_tables.py [--check]

Only what stands between `<!-- NAME -->` and `<!-- /NAME -->` is replaced; with --check nothing is written, and the exit
code is 1 if a table is not that of the results. Standard library only.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def table(report: dict[str, Any]) -> str:
    """Return the Markdown of a report: what it ran on, a line a case with a column a system, what was not measured."""
    systems = list(dict.fromkeys(row["system"] for row in report["rows"]))
    values = {(row["case"], row["system"]): row for row in report["rows"]}
    ratios = {(ratio["case"], ratio["peer"]): ratio for ratio in report.get("ratios", [])}
    cases = list(dict.fromkeys(row["case"] for row in report["rows"]))
    # Figures of a case that is compared with nothing else stand in the text.
    shown = [system for system in systems if any((case, system) in values for case in cases)]
    hardware, versions = report["hardware"], report["versions"]
    lines = [
        f"`{report['command']}` on {_processor(hardware)}, {_threads(hardware)}; "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".",
        "",
        "| case | unit | " + " | ".join(shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for case in cases:
        unit = next(values[case, system]["unit"] for system in shown if (case, system) in values)
        cells = [_cell(values.get((case, system)), ratios.get((case, system))) for system in shown]
        lines.append(f"| {case} | {unit} | " + " | ".join(cells) + " |")
    if report.get("missing"):
        reasons: dict[str, list[str]] = {}
        for missing in report["missing"]:
            reasons.setdefault(missing["reason"], []).append(f"{missing['case']} ({missing['system']})")
        lines += ["", "Not measured: " + "; ".join(f"{', '.join(what)}: {why}" for why, what in reasons.items()) + "."]
    return "\n".join(lines)


def forms_table(report: dict[str, Any]) -> str:
    """Return the Markdown of a report on forms of one model: a line a form, beside the first; a column a measure."""
    cases, systems = (list(dict.fromkeys(row[key] for row in report["rows"])) for key in ("case", "system"))
    rows = {(row["case"], row["system"]): row for row in report["rows"]}
    heads = [f"{system} ({unit})" if (unit := rows[cases[0], system]["unit"]) else system for system in systems]
    lines = ["| form | " + " | ".join(heads) + " |", "|---" * (len(systems) + 1) + "|"]
    for case in cases:
        cells = [_beside(rows[case, system], rows[cases[0], system]) for system in systems]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    hardware, versions = report["hardware"], report["versions"]
    made_with = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return "\n".join([*lines, "", f"`{report['command']}` on {_processor(hardware)}; {made_with}."])


def _beside(row: dict[str, Any], first: dict[str, Any]) -> str:
    value = row["value"]
    if row["unit"].startswith("of "):
        return f"{value:.4f}"
    text = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return text if row is first else f"{text} ({value / first['value'] - 1:+.0%})"


def _processor(hardware: dict[str, Any]) -> str:
    details = [hardware["generation"]] if hardware.get("generation") else []
    details += hardware.get("features") or []
    return f"{hardware['cpu']} ({', '.join(details)})" if details else str(hardware["cpu"])


def _threads(hardware: dict[str, Any]) -> str:
    threads = hardware.get("threads", hardware.get("cores", 1))
    return "one thread" if threads == 1 else f"{threads} cores"


def _cell(row: dict[str, Any] | None, ratio: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    text = f"{row['value']:,.4g}" if row["value"] < 1000 else f"{row['value']:,.0f}"
    if ratio is None:
        return f"**{text}**" if row["system"] == "graphtide" else text
    verdict = ""
    if ratio["target"] is not None:
        verdict = f" ({'met' if ratio['met'] else 'missed'}: {ratio['target']:.3g}x)"
    return f"{text}, {ratio['ratio']:.3g}x{verdict}"


def between(page: str, name: str, text: str) -> str:
    """Return the page with `text` between the marks of `name`.

    Raises:
        ValueError: the page has no such place.
    """
    block = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
    page, found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _m: block, page, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"the page has {found} places for the table {name!r}")
    return page


# By page, what is written between its marks.
TABLES: dict[str, dict[str, Callable[[dict[str, Any]], str]]] = {
    "benchmarks.md": dict.fromkeys(
        (
            *("rollout", "rollout_zen5", "rollout_zen3"),
            *("prefill", "prefill_zen5", "prefill_zen3"),
            *("ingest", "api", "service_faults", "simulator", "report", "dashboard"),
        ),
        table,
    ),
    "accuracy.md": {"compression": forms_table},
}


def written(page: str, tables: dict[str, Callable[[dict[str, Any]], str]]) -> str:
    """Return the page with the tables of the results."""
    for name, write in tables.items():
        result = RESULTS / f"{name}.json"
        text = write(json.loads(result.read_text(encoding="utf-8"))) if result.is_file() else "Not measured yet."
        page = between(page, name, text)
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    given = parser.parse_args()
    is_old = False
    for name, tables in TABLES.items():
        page = ROOT / "docs" / name
        before = page.read_text(encoding="utf-8")
        after = written(before, tables)
        is_old |= before != after
        if not given.check:
            page.write_text(after, encoding="utf-8")
    sys.exit(int(given.check and is_old))
