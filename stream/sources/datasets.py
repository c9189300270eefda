"""Public logs by name: found in the folders at hand, or fetched from their publisher."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from infra.errors import InputError, UsageError
from stream.sources.catalog import CATALOG, DatasetInfo
from stream.sources.download import Progress, fetch, file_sha256

__all__ = ["DATASETS", "DatasetInfo", "dataset", "find", "find_local"]

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in CATALOG}


def dataset(name: str) -> DatasetInfo:
    """Return the data set called `name`, whatever its case.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    by_lower_case = {known.lower(): info for known, info in DATASETS.items()}
    info = by_lower_case.get(name.lower())
    if info is None:
        near = [by_lower_case[key].name for key in difflib.get_close_matches(name.lower(), by_lower_case, cutoff=0.5)]
        raise UsageError(f"no data set is called {name!r}", fix=f"use one of: {', '.join(near or DATASETS)}")
    return info


def find_local(info: DatasetInfo, folders: Sequence[Path]) -> Path | None:
    """Return the file of a data set at `<folder>/<name>/<file>` in the first folder that has it; None if none has.

    Raises:
        InputError: the file there is not the one that is known.
    """
    for folder in folders:
        path = folder / info.name / info.file
        if not path.is_file():
            continue
        try:
            found = file_sha256(path)
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror or error}", fix="make the file readable or remove it"
            ) from error
        if found != info.sha256:
            raise InputError(
                f"{path} is not the data set {info.name}: its digest is {found}, expected {info.sha256}",
                fix="remove the file to have it fetched again, or ingest it under its path as any other log",
            )
        return path
    return None


def find(
    name: str,
    *,
    folders: Sequence[Path],
    cache: Path,
    mirror: str | None = None,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> Path:
    """Return the file of a data set, fetched from its publisher into `cache` if it is in none of the folders.

    Args:
        name: one of `DATASETS`.
        folders: where to look first, such as the one that GRAPHTIDE_DATA_DIR names.
        cache: where to look then, and where a fetched file goes, as `<cache>/<name>/<file>`.
        mirror: address of a copy of the publisher's files, in the place of the publisher's.
        timeout_s: longest wait for the connection and for each part of the answer.
        progress: called with the bytes fetched so far and their expected number, if known.

    Raises:
        UsageError: the name is unknown.
        InputError: the file on disk is another one, or the download failed; the error says what to do by hand.
        GraphtideError: the file cannot be written.
    """
    info = dataset(name)
    path = find_local(info, [*folders, cache])
    if path is not None:
        return path
    target = cache / info.name / info.file
    place = f"set GRAPHTIDE_DATA_DIR to a folder with {info.name}/{info.file}"
    if info.download.as_served:
        by_hand = f"download it by hand to {target}, or {place}"
    else:
        by_hand = f"{place}, or get the log from {info.page} and ingest it under its path as any other"
    fetch(
        info.download,
        target,
        sha256=info.sha256,
        by_hand=by_hand,
        mirror=mirror,
        timeout_s=timeout_s,
        progress=progress,
    )
    return target
