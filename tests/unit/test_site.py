"""The pages of the documentation: each is found from the first one, and those made from the code say all of it."""

import json
import re
from pathlib import Path

import pytest

from docs.site import check, cli, metrics, python, rest, settings
from infra.schema import METRIC_NAMES
from infra.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE = {"reference/cli", "reference/rest", "reference/settings", "reference/metrics", "reference/python"}


def navigation() -> list[str]:
    """Return the pages of all tables of contents, in their order."""
    found = []
    for page in DOCS.rglob("*.md"):
        for body in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            found += [line for line in body.splitlines() if line and not line.startswith(":")]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    pages = {page for page in pages if not page.startswith("reference/")} | MADE
    found = navigation()
    missing = sorted(pages - {"index"} - set(found))
    assert not missing, f"in no table of contents of docs/index.md: {', '.join(missing)}"
    assert sorted(found) == sorted(set(found)), "a page stands in two tables of contents"
    assert not set(found) - pages, "a table of contents names a page that is not there"


def test_every_command_has_an_example_that_calls_it() -> None:
    import typer  # noqa: PLC0415

    from forecasting.cli.app import app  # noqa: PLC0415

    commands = dict(cli.commands(typer.main.get_command(app)))
    assert {"graphtide forecast", "graphtide store backup", "graphtide report schedule add"} <= set(commands)
    page = cli.page()
    for path, command in commands.items():
        shown = cli.examples(command)
        assert shown, f"{path} has no Example: in its help"
        assert all(example.startswith("graphtide ") for example in shown), path
        assert f"## {path}\n" in page
        for option in command.params:
            assert option.param_type_name == "argument" or option.hidden or option.opts[0] in page, (path, option.name)


def test_usage_lines_have_no_stray_braces() -> None:
    page = cli.page()
    calls = re.findall(r"```text\n(graphtide .*)\n```", page)
    assert {"graphtide datasets fetch [OPTIONS] names...", "graphtide export [OPTIONS] [GRAPH] FOLDER"} <= set(calls)
    assert not [call for call in calls if "{" in call or "}" in call]


def test_every_setting_is_on_its_page_with_what_it_is_for() -> None:
    text = settings.page(ROOT / "config.toml")
    for section, keys in Settings().model_dump(mode="json").items():
        if section == "formats":
            continue
        assert f"## \\[{section}\\]" in text
        for key, value in keys.items():
            if not isinstance(value, dict):
                assert f"| `{key}` | " in text, (section, key)
    # As the file writes it, with its range.
    (row,) = [line for line in text.splitlines() if line.startswith("| `short_max_steps` |")]
    assert "≥ 1, ≤ 36500" in row
    assert "[formats.orders]" in text


def test_a_setting_that_the_file_lacks_stops_the_build(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text((ROOT / "config.toml").read_text().replace("horizon = 168", "horizons = 168"))
    with pytest.raises(ValueError, match="horizon"):
        settings.page(config)


def test_every_route_status_and_shape_is_on_the_page() -> None:
    from forecasting.api.app import application  # noqa: PLC0415

    document = application(Settings()).openapi()
    text = rest.page()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            section = text.partition(f"## {method.upper()} {path}\n")[2].partition("\n## ")[0]
            assert operation["summary"] in section
            for status in operation["responses"]:
                assert f"| `{status}` |" in section
    for name in document["components"]["schemas"]:
        assert f"### {name}\n" in text
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= {name.lower() for name in document["components"]["schemas"]}


def test_every_metric_and_every_public_name_is_on_its_page() -> None:
    import graphtide  # noqa: PLC0415

    assert all(f"| `{name}` |" in metrics.page() for name in METRIC_NAMES)
    assert all(f"autoclass:: graphtide.{name}\n" in python.page() for name in graphtide.__all__)


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img src="HTTP://example.org/x.png">',
        "<style>@import 'https://example.org/x.css';</style>",
        '<p style="background: url(https://example.org/x.png)">',
    ],
)
def test_what_loads_from_another_host_is_found(tmp_path: Path, text: str) -> None:
    page = tmp_path / "index.html"
    page.write_text(f'<html><body><a href="https://example.org/">a link loads nothing</a>{text}</body></html>')
    (tmp_path / "search.html").write_text("<script src='_static/x.js'></script>")
    (tmp_path / "searchindex.js").write_text(json.dumps({}))
    assert len(list(check.problems(tmp_path))) == 1
    page.write_text("<html></html>")
    assert not list(check.problems(tmp_path))
    page.unlink()
    assert list(check.problems(tmp_path)) == ["there is no index.html"]
