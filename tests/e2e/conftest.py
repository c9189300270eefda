"""A real browser for the tests of the dashboard, and the services that it looks at.

Chromium is the system's (`.ci/servers` installs it). Without it tests skip, or fail where
GRAPHTIDE_REQUIRE names `browser`.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from forecasting import job_worker, report_worker
from infra.settings import Settings
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from tests.conftest import lacking
from tests.integration.serving import save_model, served, service_settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TOWN = SimulationConfig(years=0.25, events_per_hour=4.0, initial_users=40, communities=4)
JOBS = {"when_idle": False, "chunk_steps": 50, "lease_s": 2}
# Long enough for a machine that has much else to do.
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Return a headless Chromium; of a module, for the event loop of playwright must not run in the tests of others."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        lacking("browser", f"there is no {' or '.join(PROGRAMS)} on the PATH; .ci/servers installs one")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - absent without the extra `test`
    except ImportError:
        lacking("browser", "the Python package playwright is not installed")
    with sync_playwright() as playwright:
        # As root Chromium runs only without its sandbox; it visits nothing but the pages of these tests.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


OpenPage = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[OpenPage]:
    """Return a function that opens an address in a window of its own; `expected` are console errors that may come.

    Whatever else a page logs as an error, and any request to another host, fails the test at its end.
    """
    contexts, faults = [], []

    def open_(url: str, *, expected: str | None = None, **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        host = urlsplit(url).netloc

        def logged(kind: str, text: str) -> None:
            if kind == "error" and not (expected and re.search(expected, text)):
                faults.append(f"console: {text}")

        def requested(address: str) -> None:
            if not address.startswith("data:") and urlsplit(address).netloc != host:
                faults.append(f"request to {address}")

        page.on("console", lambda message: logged(message.type, message.text))
        page.on("pageerror", lambda error: faults.append(f"exception: {error}"))
        page.on("request", lambda request: requested(request.url))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


@contextmanager
def serving_jobs(settings: Settings) -> Iterator[str]:
    """Yield the address of a service that also computes jobs, and makes and delivers reports."""
    stop = threading.Event()
    workers = [
        threading.Thread(target=work, args=(settings, "browser", stop), daemon=True)
        for work in (job_worker.work, report_worker.work)
    ]
    with served(settings) as client:
        for worker in workers:
            worker.start()
        try:
            yield str(client.base_url).rstrip("/")
        finally:
            # After a failure too: a worker that goes on keeps the tests from ending.
            stop.set()
            for worker in workers:
                worker.join(60)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service without keys over the graph `town`: three months by the hour, and a model."""
    folder: Path = tmp_path_factory.mktemp("town")
    store = f"sqlite:///{folder / 'store.db'}"
    ingest(SimulatedSource(TOWN, graph="town"), store, IngestOptions())
    save_model(store, "town", folder / "models")
    reports = {"paths": 20, "targets": {"archive": {"kind": "folder", "path": str(folder / "archive")}}}
    with serving_jobs(service_settings(store, folder, jobs=JOBS, reports=reports)) as address:
        yield address
