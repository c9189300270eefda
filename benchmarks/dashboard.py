"""How soon the page of a graph of 56,000 snapshots is there, and how smoothly it moves, in a real Chromium.

    python benchmarks/dashboard.py             # needs chromium on the PATH, and playwright (the extra `test`)
    python benchmarks/dashboard.py --repeats 20

A warm service over a generated store, a new browser context for every visit (nothing cached). Of each visit: the first
contentful paint, the time until the chart of the history is drawn and until the forecast is in it, all since the
navigation began. Then the mouse drags the chart, and Ctrl and the wheel zoom it, with the whole history in view and
with two weeks: frame times between animation frames meanwhile. Printed, and kept in benchmarks/results/dashboard.json.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hardware import hardware, versions
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stream.ingest import IngestOptions, ingest
from stream.simulation.config import HOURS_PER_YEAR, SimulationConfig
from stream.sources.simulate import SimulatedSource

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "dashboard.json"
SNAPSHOTS = 56_000
TOWN = SimulationConfig(years=SNAPSHOTS / HOURS_PER_YEAR, events_per_hour=4.0, initial_users=100, communities=8)
START_TIMEOUT_S, WAIT_MS = 120, 60_000
MOST_FIRST_PAINT_MS, MOST_FRAME_MS = 1000.0, 50.0
MOVES = 40
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
MARKED = "performance.getEntriesByName('graphtide-first-paint')[0].startTime"
HAS_MARK = "() => performance.getEntriesByName('graphtide-first-paint').length > 0"
HAS_FORECAST = "() => document.querySelector('#chart-says').textContent.includes('median')"
WATCH = """() => {
  window.frames = [];
  let before = null;
  const frame = (now) => {
    if (before !== null) window.frames.push(now - before);
    before = now;
    window.watching = requestAnimationFrame(frame);
  };
  window.watching = requestAnimationFrame(frame);
}"""
WATCHED = "() => { cancelAnimationFrame(window.watching); return window.frames; }"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Yield the address of `graphtide serve` over a new store, in a process of its own."""
    store = f"sqlite:///{folder / 'store.db'}"
    ingest(SimulatedSource(TOWN, graph="town"), store, IngestOptions())
    log = folder / "serve.log"
    call = [sys.executable, "-c", "from forecasting.cli import main; main()", "serve", "--port", "0", "--store", store]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GRAPHTIDE_")},
        "GRAPHTIDE_API__SERVICE_DB": str(folder / "service.db"),
        "GRAPHTIDE_JOBS__WORKERS": "0",
        "PYTHONPATH": str(ROOT),
    }
    with log.open("w") as said:
        process = subprocess.Popen(call, stderr=said, cwd=folder, env=environment)
    try:
        until_s = time.monotonic() + START_TIMEOUT_S
        while " on http" not in log.read_text():
            if process.poll() is not None or time.monotonic() > until_s:
                raise SystemExit(f"the service did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield log.read_text().partition(" on ")[2].partition(";")[0]
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def visit(browser: Browser, address: str) -> Iterator[Page]:
    """Yield a page in a browser that has seen nothing before."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{address}/graphs/town", wait_until="commit")
    page.wait_for_function(HAS_MARK)
    try:
        yield page
    finally:
        context.close()


def load(browser: Browser, address: str) -> dict[str, float]:
    """Return the milliseconds of one visit."""
    with visit(browser, address) as page:
        page.wait_for_function(HAS_FORECAST)
        forecast = page.evaluate("performance.now()")
        return {"first-paint": page.evaluate(PAINTED), "chart": page.evaluate(MARKED), "forecast": forecast}


def drag(page: Page, x: float, y: float) -> None:
    """Drag the chart to and fro."""
    page.mouse.move(x, y)
    page.mouse.down()
    for move in range(MOVES):
        page.mouse.move(x + (12 * move if move < MOVES / 2 else 12 * (MOVES - move)), y)
    page.mouse.up()


def wheel(page: Page, x: float, y: float) -> None:
    """Zoom in and out again."""
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    for move in range(MOVES):
        page.mouse.wheel(0, -60 if move < MOVES / 2 else 60)
    page.keyboard.up("Control")


def frames(page: Page, act: Callable[[Page, float, float], None]) -> list[float]:
    """Return the milliseconds between frames while the chart is moved."""
    box = page.locator("#chart").bounding_box()
    assert box is not None
    page.evaluate(WATCH)
    act(page, box["x"] + box["width"] * 0.4, box["y"] + 150)
    found: list[float] = page.evaluate(WATCHED)
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=10, help="visits, and times that the chart is moved")
    repeats = parser.parse_args().repeats
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if program is None:
        raise SystemExit("there is no chromium on the PATH; .ci/servers installs one")
    load_before = hardware()
    loads: list[dict[str, float]] = []
    moved: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as temporary,
        serving(Path(temporary)) as address,
        sync_playwright() as playwright,
    ):
        # As root Chromium runs only without its sandbox; it visits nothing but this page.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        chromium = browser.version
        load(browser, address)  # the first visit encodes the history
        loads = [load(browser, address) for _ in range(repeats)]
        with visit(browser, address) as page:
            page.wait_for_function(HAS_FORECAST)
            for view, button in (("two-weeks", None), ("all", "All")):
                if button is not None:
                    page.get_by_role("button", name=button).click()
                    page.wait_for_timeout(1000)
                for name, act in (("pan", drag), ("zoom", wheel)):
                    for _ in range(repeats):
                        moved.setdefault(f"{name}-{view}", []).extend(frames(page, act))
                        page.wait_for_timeout(300)
        browser.close()
    RESULT.write_text(text := json.dumps(result(loads, moved, load_before, chromium, repeats), indent=1) + "\n")
    print(text)


def result(
    loads: list[dict[str, float]],
    moved: dict[str, list[float]],
    load_before: dict[str, Any],
    chromium: str,
    repeats: int,
) -> dict[str, Any]:
    """Return the result file: medians, and of frames the 95th percentile too."""
    median = {name: statistics.median(one[name] for one in loads) for name in loads[0]}
    frame = {name: statistics.median(times) for name, times in moved.items()}
    rows = [{"case": name, "system": "graphtide", "value": round(ms, 1), "unit": "ms"} for name, ms in median.items()]
    for name, times in moved.items():
        late = statistics.quantiles(times, n=20)[-1]
        rows.append({"case": f"{name}-frame", "system": "graphtide", "value": round(frame[name], 1), "unit": "ms"})
        rows.append({"case": f"{name}-frame-p95", "system": "graphtide", "value": round(late, 1), "unit": "ms"})
    targets = [(name, median[name], MOST_FIRST_PAINT_MS) for name in ("first-paint", "chart")]
    targets += [(f"{name}-frame", ms, MOST_FRAME_MS) for name, ms in frame.items()]
    return {
        "bench": "dashboard",
        "command": "python benchmarks/dashboard.py",
        "snapshots": SNAPSHOTS,
        "repeats": repeats,
        "hardware": load_before,
        "versions": {**versions("graphtide", "bokeh", "playwright"), "chromium": chromium},
        "rows": rows,
        "ratios": [
            {"case": case, "peer": "target", "ratio": round(most / ms, 2), "target": 1.0, "met": ms <= most}
            for case, ms, most in targets
        ],
    }


if __name__ == "__main__":
    main()
