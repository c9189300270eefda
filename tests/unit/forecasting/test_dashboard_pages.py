"""The dashboard's files and pages: what they load, under which names, and what a browser lets them do."""

import gzip
import re
from pathlib import Path

import pytest

from forecasting.dashboard.assets import BOKEH_FILES, STATIC, Assets
from forecasting.dashboard.pages import OPTIONAL_ROUTES, Pages, content_policy

TEMPLATES = STATIC.parent / "templates"


@pytest.fixture(scope="module")
def assets() -> Assets:
    return Assets()


@pytest.fixture
def pages(assets: Assets) -> Pages:
    return Pages(assets, routes=["/v1/graphs"], short_max_steps=168)


def test_every_file_is_there_plain_and_compressed(assets: Assets) -> None:
    assert set(BOKEH_FILES) <= set(assets.names())
    assert {path.name for path in STATIC.iterdir()} <= set(assets.names())
    for name in assets.names():
        found = assets.get(name)
        assert found is not None
        assert gzip.decompress(found.compressed) == found.body


def test_the_fingerprint_changes_with_a_file(assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in STATIC.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("forecasting.dashboard.assets.STATIC", tmp_path)
    assert Assets().fingerprint == assets.fingerprint
    (tmp_path / "chart.js").write_text("// other")
    assert Assets().fingerprint != assets.fingerprint


def test_modules_import_only_their_neighbours(assets: Assets) -> None:
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/)|\beval\(|new Function|innerHTML|insertAdjacentHTML", text), (
            path.name
        )
        for name in re.findall(r'^import .* from "(.*)";', text, re.MULTILINE):
            assert name.startswith("./")
            assert assets.get(name[2:]) is not None, f"{path.name} imports {name}"


def test_a_page_asks_for_all_its_modules_at_once(pages: Pages, assets: Assets) -> None:
    assert {"api.js", "chart.js", "series.js", "schedules.js"} <= set(assets.modules("graph.js"))
    assert assets.modules("format.js") == []
    for page, module in (("graph.html", "graph.js"), ("overview.html", "overview.js")):
        rendered, _ = pages.render(page, graph="town")
        asked = re.findall(r'rel="modulepreload" href="([^"]*)"', rendered)
        assert asked == [assets.url(name) for name in assets.modules(module)]


def test_an_unknown_file_has_no_address(assets: Assets) -> None:
    assert assets.get("../pages.py") is None
    with pytest.raises(KeyError):
        assets.url("nothing.js")


@pytest.mark.parametrize("template", ["overview.html", "graph.html"])
def test_pages_hold_no_code_no_style_and_no_foreign_address(pages: Pages, assets: Assets, template: str) -> None:
    page, headers = pages.render(template, graph="town")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith(("/", "#")), address
        if address.startswith("/assets/"):
            assert address.startswith(f"/assets/{assets.fingerprint}/")
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy
    (nonce,) = re.findall(r"'nonce-([^']+)'", policy)
    assert f'nonce="{nonce}"' in page


def test_each_page_has_a_nonce_of_its_own(pages: Pages) -> None:
    policies = {pages.render("overview.html")[1]["Content-Security-Policy"] for _ in range(3)}
    assert len(policies) == 3
    assert content_policy("a") != content_policy("b")


def test_a_graph_name_is_text_and_not_markup(pages: Pages) -> None:
    page, _ = pages.render("graph.html", graph='"><script src="//elsewhere">')
    assert '<script src="//' not in page
    assert "&lt;script" in page


def test_pages_know_the_parts_that_the_service_has(assets: Assets) -> None:
    none, _ = Pages(assets, routes=["/v1/graphs"], short_max_steps=10).render("overview.html")
    assert 'data-features=""' in none
    full, _ = Pages(assets, routes=list(OPTIONAL_ROUTES.values()), short_max_steps=10).render("overview.html")
    assert 'data-features="live reports schedules alerts"' in full
