"""What pip and apt are told outside, for those inside: where packages come from, and whom to trust."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Where it is seen inside: every root of Debian has this folder, and nothing lies in it.
SEEN_AT = "/mnt"
_SETTING = re.compile(r"(?:global|install|wheel|:env:)\.([\w-]+)='(.*)'")
_PLAIN = re.compile(r"(https?|all|no)_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE", re.IGNORECASE)


@dataclass(frozen=True)
class Outside:
    """Variables for the commands of a build, and the folder that they speak of, to be bound to `SEEN_AT`."""

    environment: dict[str, str]
    folder: Path


def outside(folder: Path) -> Outside:
    """Gather the settings of pip, of proxies and of certificates; files that they name are copied to `folder`.

    A folder that they name, of wheels or of certificates, is left out: what they are for is had without it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {name: value for name, value in os.environ.items() if _PLAIN.fullmatch(name)}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    for setting in _SETTING.finditer(listed.stdout):
        told[f"PIP_{setting[1].upper().replace('-', '_')}"] = setting[2]
    given = {}
    for name, value in told.items():
        path = Path(value)
        if path.is_absolute() and path.is_file():
            shutil.copyfile(path, folder / name)
            given[name] = f"{SEEN_AT}/{name}"
        elif not path.is_absolute():
            given[name] = value
    return Outside(given, folder)
