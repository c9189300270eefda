"""Errors that a user can mend: each names the input, the place and the fix, and is shown without a traceback."""

from pathlib import Path


class GraphtideError(Exception):
    """A failure with a known cause; the command ends with `exit_code` and prints `message`, `place` and `fix`.

    Args:
        message: what is wrong, in one line, naming the input.
        place: where it is wrong (file and line, setting, flag), if that is more than the message says.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, place: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.fix = fix

    def __str__(self) -> str:
        """Return the message with place and fix on lines of their own."""
        lines = [self.message]
        if self.place:
            lines.append(f"  at:  {self.place}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(GraphtideError):
    """The call itself is wrong (a flag, an argument, a setting): exit code 2."""

    exit_code = 2


class InputError(GraphtideError):
    """The data that was read is wrong (a file, a record): exit code 1."""


class StoreError(GraphtideError):
    """A store cannot be opened, read or written, or contradicts the call: exit code 1."""


class ModelError(GraphtideError):
    """A checkpoint or a model state is missing, corrupt or does not fit: exit code 1."""


def cannot_write(path: Path, error: OSError) -> GraphtideError:
    """Return the error of a file that the system lets nobody write."""
    return GraphtideError(
        f"cannot write {path}: {error.strerror or error}",
        fix="check that the folder is writable and has free space, or name another place",
    )
