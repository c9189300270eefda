"""The files beside a store in which `graphtide ingest` leaves a sample of the records that it rejected."""

from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import GraphtideError
from infra.whole_file import whole_file

if TYPE_CHECKING:
    from stream.store.mention import Mention


def reject_folder(store_url: str) -> Path:
    """Return the folder of these files; it need not be there.

    Raises:
        UsageError: the URL names no file although it begins as if.
    """
    from stream.store.sqlite_file import URL_PREFIX, path_of_url  # noqa: PLC0415 - numpy is not needed for --help

    # A store on a server has no folder to lie beside.
    beside = path_of_url(store_url).parent if store_url.startswith(URL_PREFIX) else Path(".graphtide")
    return beside / "rejects"


def drop_lines(folder: Path, mention: "Mention") -> int:
    """Remove the lines of all these files that mention a name, and files that are empty then; return how many lines.

    Raises:
        GraphtideError: a file cannot be read or written.
    """
    dropped = 0
    try:
        for path in sorted(folder.glob("*.ndjson")):
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if not mention.among(line)]
            if len(kept) == len(lines):
                continue
            dropped += len(lines) - len(kept)
            if kept:
                with whole_file(path) as part:
                    part.write_bytes(b"".join(kept))
            else:
                path.unlink()
    except OSError as error:
        raise GraphtideError(
            f"cannot remove a name from a file of rejects: {error.strerror or error}",
            place=str(error.filename or folder),
            fix="make the file readable and its folder writable and run the same command again, or delete the file",
        ) from error
    return dropped
