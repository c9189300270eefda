"""The pictures of docs/dashboard.md, taken anew on request: GRAPHTIDE_SCREENSHOTS names the folder that they go to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forecasting.history import read_history
from forecasting.training import checkpoint_folder, train_graph
from models.optimisation import TrainingConfig
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader
from tests.e2e.conftest import JOBS, serving_jobs
from tests.integration.serving import SMALL, service_settings

FOLDER = os.environ.get("GRAPHTIDE_SCREENSHOTS", "")
GRAPHS = {"campus": 4.0, "forum": 9.0, "town": 20.0}
SHOWN = "town"
STEPS_OF_LONG = 4000
STEPS_OF_REPORT = 2000
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

pytestmark = pytest.mark.skipif(not FOLDER, reason="GRAPHTIDE_SCREENSHOTS names no folder for pictures")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service over three simulated networks, one with a model that was trained for a minute at most."""
    folder = tmp_path_factory.mktemp("pictures")
    store = f"sqlite:///{folder / 'store.db'}"
    for seed, (graph, rate) in enumerate(GRAPHS.items()):
        network = SimulationConfig(years=0.5, events_per_hour=rate, initial_users=150, communities=6, seed=seed)
        ingest(SimulatedSource(network, graph=graph), store, IngestOptions())
    with open_reader(store) as reader:
        history = read_history(reader, SHOWN)
    train_graph(
        history,
        SHOWN,
        checkpoint_folder(folder / "models", SHOWN),
        SMALL,
        TrainingConfig(budget_s=60, max_iterations=60),
    )
    reports = {"paths": 20, "targets": {"archive": {"kind": "folder", "path": str(folder / "archive")}}}
    with serving_jobs(service_settings(store, folder, jobs={**JOBS, "chunk_steps": 500}, reports=reports)) as served:
        yield served


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", ["desk", "phone"])
def test_take_pictures(address: str, open_page: Callable[..., Any], colours: str, size: str) -> None:
    options = {"color_scheme": colours, **(PHONE if size == "phone" else {"viewport": {"width": 1180, "height": 760}})}
    name = colours if size == "desk" else "phone"
    if (size, colours) == ("phone", "dark"):
        pytest.skip("one picture of a phone is enough")

    def take(page: Any, what: str) -> None:
        page.wait_for_timeout(500)
        page.screenshot(path=Path(FOLDER) / f"dashboard-{what}-{name}.png")

    page = open_page(address, **options)
    page.wait_for_function("(many) => document.querySelectorAll('.spark').length === many", arg=len(GRAPHS))
    take(page, "overview")
    page.get_by_role("link", name=SHOWN).click()
    page.locator("#chart-says").filter(has_text="median").wait_for()
    take(page, "graph")
    if size == "desk":
        page.get_by_role("combobox", name="Scenarios").select_option("3")
        page.locator("#chart-says").filter(has_text="scenarios").wait_for()
        page.evaluate("() => window.scrollTo(0, 130)")
        if colours == "light":
            take(page, "scenarios")
        page.get_by_role("combobox", name="Scenarios").select_option("0")
        page.get_by_label("Steps ahead").fill(str(STEPS_OF_LONG))
        page.get_by_role("button", name="Run the forecast").click()
        page.locator("#long-says").filter(has_text="are there").wait_for()
        page.evaluate("() => window.scrollTo(0, 130)")
        take(page, "long")
        if colours == "dark":
            return
        page.get_by_text("Set a schedule").click()
        page.get_by_role("button", name="Set the schedule").click()
        page.locator("#schedules li").wait_for()
        page.locator("#report-horizon").fill(str(STEPS_OF_REPORT))
        page.get_by_role("button", name="Make a report").click()
        page.locator("#reports .state.done").first.wait_for()
        page.locator("#reports-section").scroll_into_view_if_needed()
        page.evaluate("() => window.scrollTo(0, document.querySelector('#reports-section').offsetTop - 20)")
        take(page, "reports")
