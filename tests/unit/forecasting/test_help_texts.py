"""What is written for `--help` is what a user reads: no word of it is taken for markup."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from forecasting.cli.app import app


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(one, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _letters(text: str) -> str:
    """Return a text without what may stand between its words, or around them."""
    return re.sub(r"[\s│╭╮╰╯─•`]+", "", text)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "graphtide")
def test_every_word_of_the_help_is_printed(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    # A table of options breaks no text when the terminal is wide.
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 2000)
    ran = CliRunner().invoke(app, [*path, "--help"])
    assert ran.exit_code == 0, ran.output
    command = COMMANDS[path]
    texts = [command.help or "", *(getattr(one, "help", None) or "" for one in command.params)]
    # Two examples in one line are no command that anybody could copy.
    run_together = re.search(r"Example: graphtide .* graphtide [a-z].*", ran.output)
    assert not run_together, run_together
    missing = [text for text in texts if _letters(text) not in _letters(ran.output)]
    assert not missing, f"{missing}\n{ran.output}"


def test_all_commands_are_looked_at() -> None:
    assert {("train",), ("report", "schedule", "add"), ("store", "backup")} <= set(COMMANDS)
