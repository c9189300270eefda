"""`graphtide report` with --pdf: what it writes, and what it refuses before it begins."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from forecasting.reports.pdf import PROGRAMS
from infra.steps import HOUR_US
from stream.store import open_writer
from tests.conftest import Ran, lacking

Cli = Callable[..., Ran]


def test_a_report_is_also_printed(graphtide: Cli, toy_store: str) -> None:
    if not any(map(shutil.which, PROGRAMS)):
        lacking("browser", f"there is no {' or '.join(PROGRAMS)} on the PATH")
    ran = graphtide("report", "toy", "--horizon", "50", "--pdf", "--output", "out/toy.html", "--store", toy_store)
    assert ran.code == 0, ran.err
    assert "Wrote out/toy.pdf" in ran.err
    assert sorted(path.suffix for path in Path("out").iterdir()) == [".html", ".pdf", ".zip"]
    assert Path("out/toy.pdf").read_bytes().startswith(b"%PDF-")


def test_graph_without_a_closed_step_holds_up_no_other(graphtide: Cli, toy_store: str, tmp_path: Path) -> None:
    shutil.copy(toy_store.removeprefix("sqlite:///"), tmp_path / "store.db")
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with open_writer(url) as writer, writer.transaction():
        writer.link(writer.add_source("new", split_by_type=False), "", writer.add_graph("aanew", HOUR_US))
    ran = graphtide("report", "--all", "--horizon", "5", "--output", "out/toy.html", "--store", url)
    assert ran.code == 0, ran.err
    assert "aanew: left out: it has no closed step yet" in ran.err
    assert Path("out/toy.html").exists()


def test_without_a_browser_nothing_is_begun(graphtide: Cli, toy_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTIDE_REPORTS__BROWSER", "no-such-browser")
    ran = graphtide("report", "toy", "--horizon", "50", "--pdf", "--store", toy_store)
    assert ran.code == 1
    assert "no-such-browser" in ran.err
    assert "fix:" in ran.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--json", "--pdf"), "--json writes no file"), (("--output", "a.pdf"), "--output cannot be a.pdf")],
)
def test_wrong_calls_are_told(graphtide: Cli, toy_store: str, arguments: tuple[str, ...], said: str) -> None:
    ran = graphtide("report", "toy", *arguments, "--store", toy_store)
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize("output", ["file/below.html", "file/deep/below.html", "folder.html"])
def test_a_place_that_cannot_be_written_is_told_before_a_forecast(
    graphtide: Cli, toy_store: str, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    Path("file").write_text("in the way")
    # A folder in the place of the data that lies beside the page.
    Path("folder.zip").mkdir()
    monkeypatch.setattr("forecasting.cli.report_engines.here", lambda *_: pytest.fail("reports were made"))
    ran = graphtide("report", "toy", "--output", output, "--store", toy_store)
    assert ran.code == 1
    assert "cannot write" in ran.err
    assert "fix:" in ran.err
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder.zip"]
