"""What a Dockerfile says: its stages, and the instructions of each, in their order.

Read by the rules of https://docs.docker.com/reference/dockerfile/: lines that go on, comments between them, flags, the
two forms of a command, variables. What Graphtide's file has no need of, such as here-documents, is refused.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

_COMMENT = re.compile(r"\s*(#|$)")
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")
KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "SHELL", "USER",
    "VOLUME", "WORKDIR",
}  # fmt: skip


class DockerfileError(Exception):
    """The file says something that is not understood here; the text names the line."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        line: number of its first line.
        name: in capitals.
        flags: such as `from` of COPY --from=build.
        value: the rest, in one line.
    """

    line: int
    name: str
    flags: dict[str, str]
    value: str

    def form(self) -> list[str] | None:
        """Return the words of the form of JSON, None where it is written for a shell."""
        if not self.value.startswith("["):
            return None
        words = json.loads(self.value)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DockerfileError(f"line {self.line}: {self.name} takes a list of strings")
        return words

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """Return the words with the variables' values in their places."""
        return [expanded(word, variables) for word in (self.form() or shlex.split(self.value))]

    def pairs(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the NAME=VALUE of ENV and LABEL."""
        pairs = dict(word.partition("=")[::2] for word in shlex.split(self.value))
        return {name: expanded(value, variables) for name, value in pairs.items()}


@dataclass(frozen=True)
class Stage:
    """One stage: the image or the stage that it begins as, its own name or "", what it does."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with the values of `$NAME`, `${NAME}` and `${NAME:-default}`; what is not set is empty."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], "") or found[3] or "", text)


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a file.

    Raises:
        DockerfileError: one is unknown, or goes on over the end of the file.
    """
    found, parts, first = [], [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if _COMMENT.match(line):
            continue
        first = first if parts else number
        going_on = line.rstrip().endswith("\\")
        parts.append(line.rstrip().removesuffix("\\").strip())
        if not going_on:
            found.append(_instruction(first, " ".join(parts)))
            parts = []
    if parts:
        raise DockerfileError(f"line {first}: it goes on over the end of the file")
    return found


def _instruction(line: int, text: str) -> Instruction:
    name, _, value = text.partition(" ")
    name, value, flags = name.upper(), value.strip(), {}
    if name not in KNOWN:
        raise DockerfileError(f"line {line}: {name} is not known here")
    while flag := _FLAG.match(value):
        flags[flag[1]] = flag[2]
        value = value[flag.end() :]
    if value.startswith("--") or "<<" in value:
        raise DockerfileError(f"line {line}: a flag without a value, or a here-document, is not known here")
    return Instruction(line, name, flags, value)


def stages(text: str, build_args: Mapping[str, str]) -> list[Stage]:
    """Return the stages of a file.

    Args:
        text: the file.
        build_args: what the build is given; an ARG before the first FROM counts in FROM alone.

    Raises:
        DockerfileError: see `instructions`; or the file does not begin with ARG and FROM.
    """
    found: list[Stage] = []
    outer: dict[str, str] = {}
    for one in instructions(text):
        if one.name == "FROM":
            base, *named = one.words(outer)
            found.append(Stage(base, named[1] if named else "", ()))
        elif found:
            found[-1] = Stage(found[-1].base, found[-1].name, (*found[-1].instructions, one))
        elif one.name == "ARG":
            name, _, default = one.value.partition("=")
            outer[name] = build_args.get(name, default)
        else:
            raise DockerfileError(f"line {one.line}: {one.name} stands before the first FROM")
    return found
