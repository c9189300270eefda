"""The dashboards of Grafana are what their source says, and ask for what is measured."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.monitoring import RULES, exported_names, metrics_of

FOLDER = Path(__file__).parents[3] / "infra" / "grafana"
NAMES = ("api", "ingestion", "model", "quality")


def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grafana_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboards" / f"{name}.json").read_text())
    return found


def charts(name: str) -> list[dict[str, Any]]:
    return [panel for panel in loaded(name)["panels"] if panel["type"] != "row"]


def test_the_files_are_made_from_their_source() -> None:
    files = build().files()
    assert sorted(path.stem for path in files) == sorted(path.stem for path in (FOLDER / "dashboards").iterdir())
    for path, text in files.items():
        assert path.read_text() == text, f"{path.name} is old: python infra/grafana/build.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_chart_asks_for_what_is_exported_or_recorded(name: str, tmp_path: Path) -> None:
    documents = [yaml.safe_load(path.read_text()) for path in RULES]
    recorded = {rule.get("record") for document in documents for group in document["groups"] for rule in group["rules"]}
    known = exported_names(tmp_path) | recorded
    for panel in charts(name):
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            asked = metrics_of(target["expr"])
            assert asked, target["expr"]
            assert asked <= known, panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_charts_stand_in_the_grid_and_use_the_provisioned_source(name: str) -> None:
    source = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (uid,) = [one["uid"] for one in source["datasources"]]
    taken: set[tuple[int, int]] = set()
    for panel in charts(name):
        assert panel["datasource"]["uid"] == uid
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies on another chart"
        taken |= cells
