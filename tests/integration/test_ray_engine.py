"""`--engine ray`: what it finds is what the processes of this machine find, also where a worker or a node is lost.

The commands are those of docs/scale-out.md.
"""

import json
import os
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from forecasting.backtests.engine import LocalEngine
from forecasting.evaluation import evaluate
from forecasting.history import read_history
from forecasting.scaleout.backtests import RayEngine
from forecasting.scaleout.cluster import Cluster, connected
from forecasting.scaleout.source import Seen, Source
from infra.errors import GraphtideError, StoreError, UsageError
from infra.settings import RaySettings, Settings
from models.contract import History
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from stream.store import open_reader
from tests.conftest import Ran, lacking
from tests.integration import ray_nodes


@pytest.fixture(scope="module", autouse=True)
def ray_is_here() -> None:
    if find_spec("ray") is None:
        lacking("ray", "the extra `ray` is not installed")


Cli = Callable[..., Ran]
GRAPHS = ("ash", "elm", "oak")
SMALL: dict[str, dict[str, Any]] = {
    "forecaster": {"d_model": 16, "n_layers": 1, "d_state": 8, "headdim": 16},
    "training": {"max_iterations": 1, "tokens_per_batch": 64, "budget_s": 600},
    "backtest": {"horizons": (1, 24), "origins": 2, "floors": ("profile_level",)},
    "ray": {"object_store_mb": 80},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('many') / 'store.db'}"
    for seed, graph in enumerate(GRAPHS):
        config = SimulationConfig(years=0.25, events_per_hour=1.0, initial_users=40, communities=4, seed=seed)
        ingest(SimulatedSource(config, graph=graph), url, IngestOptions())
    return url


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    with ray_nodes.two_nodes(cores=1) as nodes:
        from ray import cloudpickle  # noqa: PLC0415 - reads the environment

        # Workers have no module of tests.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield nodes


@pytest.fixture(scope="class")
def cluster(two_nodes: Any) -> Iterator[Cluster]:
    """Return a connection that the tests of a class share: the workers of each one import everything anew."""
    with connected(RaySettings(address=two_nodes.address, retries=2)) as connection:
        yield connection


def settings_of(store: str, folder: Path) -> Settings:
    return Settings(store={"url": store}, models={"directory": folder}, **SMALL)  # type: ignore[arg-type]


def histories_of(store: str) -> dict[str, History]:
    with open_reader(store) as reader:
        return {graph: read_history(reader, graph) for graph in GRAPHS}


def scores(found: Any) -> Any:
    values = found.to_json()
    for graph in values["graphs"]:
        # What it took, and not what came of it.
        del graph["timings"]
    return values


def mark(item: int, folder: str) -> tuple[int, int]:
    """Say where it runs; the first try of item 3 kills its process."""
    tried = Path(folder) / f"{item}-{os.getpid()}"
    tried.touch()
    if item == 3 and len(list(Path(folder).glob("3-*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item, item * item


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(item: int) -> None:
    raise StoreError(f"no {item}", fix="mend it")


class TestTasks:
    def test_a_worker_that_is_killed_is_replaced(self, cluster: Cluster, tmp_path: Path) -> None:
        found: dict[int, tuple[int, int]] = {}
        cluster.each(mark, range(6), found.__setitem__, shared=(str(tmp_path),), named=str)
        assert found == {item: (item, item * item) for item in range(6)}
        assert len(list(tmp_path.glob("3-*"))) == 2

    def test_a_task_that_kills_each_of_its_workers_is_named(self, cluster: Cluster) -> None:
        with pytest.raises(GraphtideError, match="the worker of number 7 was lost 3 times"):
            cluster.each(die, [7], lambda item, result: None, named=lambda item: f"number {item}")

    def test_an_error_of_a_task_is_the_errors_own(self, cluster: Cluster) -> None:
        with pytest.raises(StoreError, match="no 1") as caught:
            cluster.each(fail, [1], lambda item, result: None, named=str)
        assert caught.value.fix == "mend it"

    def test_what_is_given_up_is_cancelled(self, cluster: Cluster, tmp_path: Path) -> None:
        def stop(item: int, result: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cluster.each(mark, range(10, 60), stop, shared=(str(tmp_path),), named=str)
        # A few at a time are handed over, and none after the end.
        assert len(list(tmp_path.iterdir())) < 10
        found: dict[int, tuple[int, int]] = {}
        cluster.each(mark, [1], found.__setitem__, shared=(str(tmp_path),), named=str)
        assert found == {1: (1, 1)}

    def test_a_backtest_survives_the_loss_of_a_node(
        self, two_nodes: Any, cluster: Cluster, store: str, tmp_path: Path
    ) -> None:
        settings, histories = settings_of(store, tmp_path / "here"), histories_of(store)
        here = evaluate(histories, settings, engine=LocalEngine(1))
        elsewhere = settings_of(store, tmp_path / "there")
        trained: list[int] = []
        lost = threading.Event()

        def lose_a_node(done: int, total: int) -> None:
            if done < total and not lost.is_set():
                lost.set()
                ray_nodes.lose_a_node(two_nodes)
                ray_nodes.add_node(two_nodes, cores=1)

        engine = RayEngine(cluster, Source.of(elsewhere), lambda done, total: trained.append(done))
        there = evaluate(histories, elsewhere, engine=engine, on_progress=lose_a_node)
        assert lost.is_set()
        assert trained == [1, 2, 3]
        assert json.dumps(scores(there), sort_keys=True) == json.dumps(scores(here), sort_keys=True)
        # Nothing is made twice, and the names of the parts are those of this machine.
        again = evaluate(histories, elsewhere, engine=engine)
        assert again.reused[0] == again.reused[1] > 0
        assert again.trained == ()
        kept = [
            {path.relative_to(root) for path in root.rglob("*.safetensors.zst")}
            for root in (tmp_path / "here", tmp_path / "there")
        ]
        assert kept[0] == kept[1]

    def test_a_store_that_changed_or_cannot_be_reached_is_told(
        self, cluster: Cluster, store: str, tmp_path: Path
    ) -> None:
        histories = histories_of(store)
        gone = Source(f"sqlite:///{tmp_path / 'none.db'}", Settings().influxdb)
        with pytest.raises(StoreError, match="a worker cannot read the store: there is no store") as caught:
            Seen.of("oak", histories["oak"]).read(gone)
        assert "PostgreSQL" in str(caught.value.fix)
        changed = histories["oak"].values.copy()
        changed[0, 0] += 1
        other = History(histories["oak"].step_us, histories["oak"].start_us, changed)
        with pytest.raises(StoreError, match="not those that this command began with"):
            Seen.of("oak", other).read(Source(store, Settings().influxdb))


def test_relative_stores_are_found_from_elsewhere() -> None:
    source = Source.of(Settings(store={"url": "sqlite:///a/b.db"}))  # type: ignore[arg-type]
    assert source.url == f"sqlite:///{Path.cwd() / 'a/b.db'}"


@pytest.mark.parametrize(("address", "message"), [("head", "cannot be 'head'"), ("127.0.0.1:1", "no Ray cluster")])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message), connected(RaySettings(address=address)):
        pass


def set_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line train as `SMALL` says."""
    for section in ("forecaster", "training"):
        for key, value in SMALL[section].items():
            monkeypatch.setenv(f"GRAPHTIDE_{section.upper()}__{key.upper()}", str(value))


def made_files(page: Path) -> dict[str, str]:
    """Return the page of a report and the parts of its bundle as text, without the time at which it was made."""
    with zipfile.ZipFile(page.with_suffix(".zip")) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    made = json.loads(files["report.json"])["made"]
    files[page.name] = page.read_bytes()
    return {name: content.decode("latin-1").replace(made, "") for name, content in files.items()}


def test_the_command_line_trains_and_reports_as_it_does_here(
    graphtide: Cli, store: str, two_nodes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", store)
    set_small(monkeypatch)
    # A module of the user's with the name of one of ours.
    Path("models.py").write_text("raise SystemExit('the wrong module')")
    ray = ("--engine", "ray", "--ray-address", two_nodes.address)
    here = graphtide("train", "ash", "elm", "--json")
    assert here.code == 0, here.err
    shutil.rmtree(".graphtide/models")
    there = graphtide("train", "ash", "elm", "--json", *ray)
    assert there.code == 0, there.err
    cards = [json.loads(ran.out) for ran in (here, there)]
    assert [card["digest"] for card in cards[0]] == [card["digest"] for card in cards[1]]

    ran = graphtide("report", *GRAPHS, "--horizon", 48, "--output", tmp_path / "here")
    assert ran.code == 0, ran.err
    ran = graphtide("report", "--all", "--horizon", 48, "--output", tmp_path / "there", *ray)
    assert ran.code == 0, ran.err
    for graph in GRAPHS:
        here_files, there_files = (made_files(tmp_path / where / f"report-{graph}.html") for where in ("here", "there"))
        assert here_files.keys() == there_files.keys()
        assert [name for name in here_files if here_files[name] != there_files[name]] == []
    assert (tmp_path / "there" / "index.html").exists()


def test_young_graphs_are_left_out_as_they_are_here(
    graphtide: Cli, two_nodes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    for graph, years in (("ash", 0.1), ("asp", 0.005), ("elm", 0.1)):
        config = SimulationConfig(years=years, events_per_hour=1.0, initial_users=40, communities=4)
        ingest(SimulatedSource(config, graph=graph), url, IngestOptions())
    monkeypatch.setenv("GRAPHTIDE_STORE__URL", url)
    set_small(monkeypatch)
    cards = []
    for engine in ((), ("--engine", "ray", "--ray-address", two_nodes.address)):
        ran = graphtide("train", "--json", *engine)
        assert ran.code == 0, ran.err
        assert "asp: left out: a history of" in ran.err
        cards.append(json.loads(ran.out))
        shutil.rmtree(".graphtide/models")
    assert [card["data"][0]["graph"] for card in cards[0]] == ["ash", "elm"]
    assert [card["digest"] for card in cards[0]] == [card["digest"] for card in cards[1]]


def test_flags_that_do_not_fit_are_refused(graphtide: Cli) -> None:
    assert "--ray-address is for --engine ray" in graphtide("backtest", "x", "--ray-address", "a:1").err
    assert "leave out --distributed" in graphtide("train", "--engine", "ray", "--general", "x").err
    assert "one of the two" in graphtide("report", "make").err
