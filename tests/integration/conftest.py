"""A small store that the integration tests share, filled with a simulated network."""

from pathlib import Path

import pytest

from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource

TOY = SimulationConfig(years=0.25, events_per_hour=4.0, initial_users=40, communities=4)


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a store with the graph `toy`: three months by the hour. Tests only read it."""
    path: Path = tmp_path_factory.mktemp("toy") / "store.db"
    url = f"sqlite:///{path}"
    ingest(SimulatedSource(TOY, graph="toy"), url, IngestOptions())
    return url
