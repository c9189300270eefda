"""Secrets that stand in files of their own, so that they stand neither in the settings nor in a process list."""

from pathlib import Path

from infra.errors import UsageError


def read_secret(path: str, *, of: str, kind: str, place: str, variable: str) -> str:
    """Return what a file holds, without blanks around it.

    Args:
        path: of the file.
        of: whose secret it is, for messages.
        kind: what it is, such as a token.
        place: the setting that names the file.
        variable: of the environment, that can hold it instead.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the {kind} of {of} cannot be read from {path}: {reason}",
            place=place,
            fix=f"name a file that holds the {kind} alone, or set {variable}",
        ) from None
