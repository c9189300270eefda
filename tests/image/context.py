"""The files that a build may see: those of the folder that `.dockerignore` does not keep out.

By the rules of https://docs.docker.com/build/concepts/context/#dockerignore-files: the last pattern that matches a
path, or a folder above it, decides; `!` lets in again; `**` stands for any number of folders.
"""

import os
import re
import shutil
from pathlib import Path


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meant.get(part, re.escape(part)) for part in parts) + "(?:/.*)?")


class Context:
    """A folder as a build sees it."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, with the `.dockerignore` in it if there is one."""
        self.folder = folder
        ignore = folder / ".dockerignore"
        lines = [line.strip() for line in ignore.read_text().splitlines()] if ignore.is_file() else []
        self._rules = [
            (_expression(line.removeprefix("!")), line.startswith("!"))
            for line in lines
            if line and not line.startswith("#")
        ]

    def has(self, path: str) -> bool:
        """Tell whether a file of this path, relative to the folder, is let through."""
        seen = True
        for expression, lets_in in self._rules:
            if expression.fullmatch(path):
                seen = lets_in
        return seen

    def files(self, source: str) -> list[str]:
        """Return the paths of the files at or below `source` that are let through."""
        start = self.folder / source
        if start.is_file():
            return [source] if self.has(source) else []
        below = (Path(root, name) for root, _, names in os.walk(start) for name in names)
        return sorted(path for file in below if self.has(path := file.relative_to(self.folder).as_posix()))

    def copy(self, source: str, target: Path) -> None:
        """Copy a file to `target`, a file or an existing folder, or what is in a folder into the folder `target`.

        Raises:
            FileNotFoundError: nothing of that name is let through.
        """
        found = self.files(source)
        if not found:
            raise FileNotFoundError(f"COPY {source}: it is not in {self.folder}, or .dockerignore keeps it out")
        if (self.folder / source).is_file():
            shutil.copy2(self.folder / source, target)
            return
        for path in found:
            goal = target / Path(path).relative_to(source)
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.folder / path, goal)
