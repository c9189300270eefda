"""The examples of a page: its fenced blocks of commands and Python, and what the page says about running them.

A comment before a block says why it is not run, or which test runs it:

    <!-- not run: it needs Docker -->
    <!-- run by tests/integration/test_client.py -->

Once in a page, `<!-- each curl is run by PATH -->` says so of all blocks that hold nothing else.

In a block `console`, lines after `$ ` are commands, the others what they print. A block `python` whose first line is a
comment with a name, such as `# send.py`, is a file of that name. A fence with attributes belongs to another test.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(sh|bash|console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|run by):? ((?:(?!-->).)+?) -->\s*\Z", re.DOTALL)
_CALLS = re.compile(r"<!-- each curl is run by (\S+) -->")
_FILE = re.compile(r"# ([\w-]+\.py)\n")
_NUMBER = re.compile(r"\d[\d.,:]*(?:[TZ][\d:]*Z?)?")
_PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        line: number of its first line in the page.
        language: sh, bash, console or python.
        text: what is in it.
        not_run: why it is not run, "" if it is.
        run_by: path of the test that runs it, "" if none does.
    """

    line: int
    language: str
    text: str
    not_run: str = ""
    run_by: str = ""

    @property
    def file_name(self) -> str:
        """The file that the block is, "" if it is something to run."""
        found = _FILE.match(self.text) if self.language == "python" else None
        return found[1] if found else ""

    def commands(self) -> list[tuple[str, list[str]]]:
        """Return each command, joined where it goes over several lines, with the lines that it is shown to print."""
        found: list[tuple[str, list[str]]] = []
        open_command = ""
        for line in self.text.splitlines():
            if self.language == "console" and not open_command and not line.startswith(_PROMPT):
                assert found, f"line {self.line}: a block of console begins with a command"
                found[-1][1].append(line)
                continue
            open_command += line.removeprefix(_PROMPT if self.language == "console" else "")
            if open_command.endswith("\\"):
                open_command = open_command[:-1]
                continue
            if open_command.strip() and not open_command.lstrip().startswith("#"):
                found.append((open_command, []))
            open_command = ""
        return found


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    blocks = []
    calls = _CALLS.search(text)
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        said = {mark[1]: " ".join(mark[2].split())} if mark else {}
        if calls and all(line.startswith("curl ") for line in fence[2].splitlines()):
            said = {"run by": calls[1]}
        blocks.append(
            Block(
                text[: fence.start()].count("\n") + 2,
                fence[1],
                fence[2],
                not_run=said.get("not run", ""),
                run_by=said.get("run by", ""),
            )
        )
    return blocks


def shape(text: str) -> str:
    """Return a line without its numbers and with single spaces, as output is compared."""
    return " ".join(_NUMBER.sub("#", text).split())


def missing(shown: list[str], printed: str) -> list[str]:
    """Return the shown lines that the output has not, in their order; a line `…` stands for any lines."""
    found = [shape(line) for line in printed.splitlines()]
    lacking, at = [], 0
    for line in shown:
        wanted = shape(line)
        if wanted in ("", "…"):
            continue
        try:
            at = found.index(wanted, at) + 1
        except ValueError:
            lacking.append(line)
    return lacking


def pages(root: Path) -> dict[str, str]:
    """Return the text of every page with examples, by its path."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
