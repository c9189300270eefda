"""The live sources of `graphtide ingest`: which names they have, and what their options may be."""

from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.settings import Settings
    from stream.decoders.builder import DecodeOptions
    from stream.sources.live import LiveSource

# As `stream.sources.live.LIVE_SOURCES`, which is slow to import for --help; a test holds the two together.
LIVE_NAMES = ("wikimedia", "jetstream", "mastodon")


def is_live(source: Path, url: str | None) -> bool:
    """Tell whether a source is one of the live ones; a file of the same name goes before it.

    Raises:
        UsageError: an address is given for another source.
    """
    live = str(source) in LIVE_NAMES and not source.exists()
    if url is not None and not live:
        raise UsageError("--url is for live sources", fix=f"leave it out, or ingest one of {', '.join(LIVE_NAMES)}")
    return live


def live_source(name: str, decoding: "DecodeOptions", settings: "Settings", url: str | None) -> "LiveSource":
    """Return the live source of a name.

    Raises:
        UsageError: an option does not fit: the shape of the messages is that of the service.
        InputError: the access token cannot be read.
    """
    from stream.sources.live import open_live  # noqa: PLC0415 - not needed for --help

    if decoding.format not in ("auto", name) or decoding.columns or decoding.time_unit != "auto":
        raise UsageError(
            f"{name} has a shape of its own", fix="leave out --format, --columns and --time-unit for a live source"
        )
    return open_live(name, settings.live, decoding, url=url)
