"""What is read out of the pages, and that few of their examples are not run."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forecasting.cli.app import app
from tests.docs_blocks import blocks_of, missing, pages

ROOT = Path(__file__).parents[2]
# Examples that cannot be run here: more than these say that the pages are drifting away from what is checked.
MOST_NOT_RUN = 7
PAGE = """
# Page

```sh
one --flag   # says something
# a comment
two \\
  --more
```

<!-- not run: it needs
Docker -->
```bash
docker compose up
```

<!-- run by tests/unit/test_docs_blocks.py -->

```python
three()
```

```python
# send.py
four()
```

```console
$ five
a  17 rows
$ six
```

```json
{}
```
"""


def test_blocks_are_read_with_their_marks() -> None:
    one, docker, three, four, five = blocks_of(PAGE)
    assert one.commands() == [("one --flag   # says something", []), ("two   --more", [])]
    assert (one.line, one.not_run, one.run_by, one.file_name) == (5, "", "", "")
    assert docker.not_run == "it needs Docker"
    assert three.run_by == "tests/unit/test_docs_blocks.py"
    assert (four.file_name, four.not_run, four.run_by) == ("send.py", "", "")
    assert five.commands() == [("five", ["a  17 rows"]), ("six", [])]


def test_calls_of_a_page_may_be_run_by_one_test() -> None:
    text = "<!-- each curl is run by x.py -->\n```sh\ncurl a\ncurl b\n```\n```sh\ncurl a\ngraphtide graphs\n```\n"
    assert [block.run_by for block in blocks_of(text)] == ["x.py", ""]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/kafka.md", "docs/influxdb.md"])
def test_the_pages_that_newcomers_follow_are_run(page: str) -> None:
    assert any(not (block.not_run or block.run_by) for block in blocks_of(pages(ROOT)[page]))


@pytest.mark.parametrize(
    ("shown", "lacking"),
    [
        (["graph step", "town 2h 1,234 2021-01-04T02:00:00Z"], []),
        (["…", "town 1h 9 2026-11-28T10:00:00Z", "…"], []),
        (["town 1h 9 2026-11-28T10:00:00Z", "graph step"], ["graph step"]),
        (["harbour 1h 9 2026-11-28T10:00:00Z"], ["harbour 1h 9 2026-11-28T10:00:00Z"]),
    ],
)
def test_output_is_compared_by_its_shape(shown: list[str], lacking: list[str]) -> None:
    assert missing(shown, " graph   step\n town     1h   8,870   2021-04-05T07:00:00Z\n") == lacking


def test_few_examples_are_not_run_and_each_says_why() -> None:
    not_run = [
        (page, block.line, block.not_run)
        for page, text in pages(ROOT).items()
        for block in blocks_of(text)
        if block.not_run
    ]
    assert len(not_run) <= MOST_NOT_RUN, not_run
    assert all(len(why) > 10 for _, _, why in not_run)


def test_what_another_test_runs_is_known_to_it() -> None:
    for page, text in pages(ROOT).items():
        for block in blocks_of(text):
            if block.run_by:
                runner = ROOT / block.run_by
                assert runner.is_file(), (page, block.line, block.run_by)
                first = block.commands()[0][0].partition(" #")[0].strip()
                assert Path(page).name in runner.read_text() or first in runner.read_text(), (page, block.line)


def test_what_is_not_run_has_the_commands_and_options_that_it_names() -> None:
    """With `--help` at its end, a command is read with all its options, and does nothing."""
    commands = [
        re.sub(r"^[A-Z_]+=\S+ ", "", command.partition(" #")[0].strip())
        for text in pages(ROOT).values()
        for block in blocks_of(text)
        if block.not_run
        for command, _ in block.commands()
    ]
    ours = [shlex.split(command)[1:] for command in commands if command.startswith("graphtide ")]
    assert ours
    for arguments in ours:
        ran = CliRunner().invoke(app, [*arguments, "--help"])
        assert ran.exit_code == 0, (arguments, ran.output)
    assert CliRunner().invoke(app, ["graphs", "--none-such", "--help"]).exit_code != 0
