"""The files of the dashboard in memory, under a name that changes with what is in them."""

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import bokeh

STATIC = Path(__file__).parent / "static"
BOKEH = Path(bokeh.__file__).parent / "server" / "static" / "js"
# The parts of BokehJS that the charts need: the library, and its plotting interface.
BOKEH_FILES = ("bokeh.min.js", "bokeh-api.min.js")
_IMPORT = re.compile(rb'^import .* from "\./(.*)";', re.MULTILINE)
_MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, the same compressed by gzip, and what they are."""

    body: bytes
    compressed: bytes
    media_type: str


class Assets:
    """All files that a page loads.

    Attributes:
        fingerprint: a digest over all of them. One for all, so that a module finds its neighbours by relative names.
    """

    def __init__(self) -> None:
        paths = [*sorted(path for path in STATIC.iterdir() if path.suffix in _MEDIA_TYPES)]
        paths += [BOKEH / name for name in BOKEH_FILES]
        self._files: dict[str, Asset] = {}
        digest = hashlib.sha256()
        for path in paths:
            body = path.read_bytes()
            digest.update(f"{path.name} {len(body)}\n".encode() + body)
            self._files[path.name] = Asset(body, gzip.compress(body, 6, mtime=0), _MEDIA_TYPES[path.suffix])
        self.fingerprint = digest.hexdigest()[:16]

    def names(self) -> list[str]:
        """Return the names of all files."""
        return list(self._files)

    def get(self, name: str) -> Asset | None:
        """Return a file by its name, or None if there is none."""
        return self._files.get(name)

    def modules(self, name: str) -> list[str]:
        """Return the names of the modules that a module imports, directly or not: a page asks for all of them at once.

        Raises:
            KeyError: there is no such file.
        """
        found: list[str] = []
        waiting = [name]
        while waiting:
            for imported in _IMPORT.findall(self._files[waiting.pop()].body):
                one = imported.decode()
                if one not in found:
                    found.append(one)
                    waiting.append(one)
        return sorted(found)

    def url(self, name: str) -> str:
        """Return the address of a file.

        Raises:
            KeyError: there is no such file.
        """
        if name not in self._files:
            raise KeyError(name)
        return f"/assets/{self.fingerprint}/{name}"
