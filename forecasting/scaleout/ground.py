"""What a replica of the service stands on, and whether a node of the cluster has it."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from forecasting.scaleout.source import Source
from forecasting.scaleout.versions import made_of, refuse_others
from infra.errors import StoreError, UsageError
from infra.settings import Settings
from stream.store.sqlite_file import URL_PREFIX, path_of_url

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Ground:
    """The settings as any process of the cluster can use them, and what they name here.

    Attributes:
        settings: all of them; paths are absolute, since workers stand in another folder.
        made_of: the versions of this process.
        host: what tells this running machine from all others.
        files: the device of each file that one host alone can use, by its setting; a file that is restored stays on it.
        has_models: whether the folder of models is there.
    """

    settings: Settings
    made_of: dict[str, str]
    host: str
    files: dict[str, int]
    has_models: bool

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return that of the settings; the files that are to be made here are there by now."""
        absolute = from_anywhere(settings)
        files = {setting: found for setting, path in _files(absolute) if (found := _device(path)) is not None}
        return cls(absolute, made_of(), _host(), files, absolute.models.directory.is_dir())

    def check(self) -> None:
        """Check that this process can serve as the others do.

        Raises:
            UsageError: it has other versions, runs on another host than a file that is used, or has no models.
            StoreError: it sees another file.
        """
        refuse_others(self.made_of)
        here = socket.gethostname()
        for setting, path in _files(self.settings):
            if _host() != self.host:
                raise _one_host_alone(setting, path, here)
            if setting in self.files and _device(path) != self.files[setting]:
                raise StoreError(
                    f"{path} is not the same file on {here}", place=setting, fix="mount it into all nodes of this host"
                )
        folder = self.settings.models.directory
        if self.has_models and not folder.is_dir():
            raise UsageError(
                f"the node {here} has no folder {folder}",
                place="[models] directory",
                fix="share the folder of models between all hosts: graphs would be forecast by the general model",
            )

    def refuse_hosts(self, hosts: set[str]) -> None:
        """Check that files of one host are used on one alone.

        Args:
            hosts: names of the hosts of the cluster.

        Raises:
            UsageError: there are others than this.
        """
        for other in sorted(hosts - {socket.gethostname()}):
            for setting, path in _files(self.settings):
                raise _one_host_alone(setting, path, other)


def from_anywhere(settings: Settings) -> Settings:
    """Return settings whose paths do not depend on the working directory."""
    changed: Settings = _absolute(settings)
    store = changed.store.model_copy(update={"url": Source.of(settings).url})
    return changed.model_copy(update={"store": store})


def _absolute(section: Any) -> Any:
    update: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            update[name] = _absolute(value)
        elif isinstance(value, Path) or (name.endswith("_file") and value):
            update[name] = type(value)(os.path.abspath(value))  # noqa: PTH100 - of a str as well
    return section.model_copy(update=update)


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield what only the processes of one host can share: SQLite locks its files by the memory of the host."""
    if settings.store.url.startswith(URL_PREFIX):
        yield "[store] url", path_of_url(settings.store.url)
    # The address of a database is text.
    books: Path | str = settings.api.service_db
    if isinstance(books, Path):
        yield "[api] service_db", books
    if settings.api.ingestion:
        yield "[spool] path", settings.spool.path


def _host() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None


def _one_host_alone(setting: str, path: Path, host: str) -> UsageError:
    """Return the error of a node on another host than a file that is used."""
    return UsageError(
        f"{path} is a file that one host alone can use, and {host} is a node of the cluster too",
        place=setting,
        fix="name a PostgreSQL that all hosts reach, or use a cluster of one host",
    )
