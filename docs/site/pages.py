"""All pages that are made from the code, and where they go."""

from pathlib import Path

from docs.site import cli, metrics, python, rest, settings
from infra.whole_file import whole_file


def write_pages(root: Path) -> list[Path]:
    """Write the pages into `docs/reference`, which is not under version control; return their paths.

    Args:
        root: of the repository.
    """
    made = {
        "cli.md": cli.page(),
        "rest.md": rest.page(),
        "settings.md": settings.page(root / "config.toml"),
        "metrics.md": metrics.page(),
        "python.md": python.page(),
    }
    folder = root / "docs" / "reference"
    for name, text in made.items():
        path = folder / name
        # Left alone where it is the same, so that Sphinx reads only what changed.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with whole_file(path) as file:
                file.write_text(text, encoding="utf-8")
    return [folder / name for name in made]
