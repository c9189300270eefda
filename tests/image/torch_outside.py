"""Torch from the Python that runs this, instead of gigabytes for every replay.

The Dockerfile installs torch from the index TORCH_INDEX where it is given one. `index` makes such an index: its wheel
has torch's name, version and description, so that pip, the bill of materials and `importlib.metadata` see torch, but no
code. `mounts` says which folders of code are to be seen in its place when the image is run.
"""

import base64
import hashlib
import re
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

# As in infra/docker/runtime_requirements.py: what the build of torch for CUDA brings, and torch itself.
_OF_CUDA = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)")


def unfit(lock: str, python: str) -> str:
    """Tell why the torch of this Python cannot stand for the image's; "" where it can.

    Args:
        lock: text of requirements.lock.
        python: version of the image's Python, such as "3.11".
    """
    here = "{}.{}".format(*sys.version_info)
    if here != python:
        return f"this is Python {here}, that of the image is {python}"
    pinned = re.search(r"^torch==([^ ;]+)", lock, re.MULTILINE)
    try:
        found = distribution("torch").version
    except PackageNotFoundError:
        return "torch is not installed here"
    if pinned is None or found.partition("+")[0] != pinned[1]:
        return f"torch is {found} here, {pinned[1] if pinned else 'nothing'} in requirements.lock"
    return ""


def index(folder: Path) -> None:
    """Write an index, as pip reads one from a folder, with the one wheel."""
    torch = distribution("torch")
    version = torch.version.partition("+")[0]
    described = re.sub(r"^Version: .*$", f"Version: {version}", torch.read_text("METADATA") or "", flags=re.MULTILINE)
    info = f"torch-{version}.dist-info"
    held = {
        f"{info}/METADATA": described,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in held.items())
    name = f"torch-{version}-py3-none-any.whl"
    (folder / "torch").mkdir(parents=True)
    with zipfile.ZipFile(folder / "torch" / name, "w") as wheel:
        for path, text in (*held.items(), (f"{info}/RECORD", f"{record}{info}/RECORD,,\n")):
            wheel.writestr(path, text)
    (folder / "torch" / "index.html").write_text(f'<!DOCTYPE html><a href="{name}">{name}</a>\n')


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def mounts(packages: str) -> dict[str, Path]:
    """Return the folders of torch and of what it brings, by the path where they are to be seen.

    Args:
        packages: path of site-packages in the image.
    """
    found = {}
    for one in distributions():
        if _OF_CUDA.fullmatch(re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()):
            for folder in _folders(one):
                found[f"{packages}/{folder.name}"] = folder
    return found


def _folders(one: Distribution) -> set[Path]:
    """Return the folders of code that a distribution lies in."""
    tops = {path.parts[0] for path in one.files or [] if len(path.parts) > 1}
    return {
        Path(str(one.locate_file(top))) for top in tops
        if top != ".." and not top.endswith((".dist-info", ".libs")) and top != "__pycache__"
    }  # fmt: skip
