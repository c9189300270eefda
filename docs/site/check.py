"""What a built site has to hold: it loads nothing from elsewhere, and can be searched without a server.

python -m docs.site.check build/docs
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# Attributes whose address a browser asks for by itself; a link is asked for when somebody clicks.
_LOADING = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
}
_OTHER_HOST = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
_CSS_LOADS = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^)'\";]*", re.IGNORECASE)


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _LOADING.get(tag, ()) and value and _OTHER_HOST.match(value):
                self.found.append(f"<{tag} {name}={value}>")
            if name == "style" and value:
                self.found += _CSS_LOADS.findall(value)


def loads(path: Path) -> list[str]:
    """Return what a page or a style sheet loads from other hosts."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return _CSS_LOADS.findall(text)
    parser = _Loads()
    parser.feed(text)
    return parser.found + _CSS_LOADS.findall("".join(re.findall(r"<style.*?</style>", text, re.DOTALL)))


def problems(site: Path) -> Iterator[str]:
    """Yield what is wrong with a built site."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            for found in loads(path):
                yield f"{path.relative_to(site)} loads from another host: {found}"
    for name in ("index.html", "search.html", "searchindex.js"):
        if not (site / name).is_file():
            yield f"there is no {name}"


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    found = list(problems(Path(sys.argv[1])))
    sys.stderr.writelines(f"{line}\n" for line in found)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
