"""A replay from the checkout to an image, and the container that it is run as."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.image import torch_outside
from tests.image.base import check, clean_root, release_of
from tests.image.build import Build, Image
from tests.image.chamber import Chamber
from tests.image.context import Context
from tests.image.dockerfile import stages
from tests.image.outside import SEEN_AT, outside

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"


@dataclass(frozen=True)
class Replay:
    """An image, and the folders of torch that are bound in when it is run: none where it was installed in it."""

    image: Image
    torch: dict[str, Path]

    def container(self, volume: Path) -> Chamber:
        """Return a container as compose.yaml runs it: no rights, a read-only root, `volume` as /data.

        A volume that is not there yet is made as an engine does, with the owner and the rights that the image gives it.
        """
        (data,) = self.image.volumes
        if not volume.exists():
            volume.mkdir()
            held = self.image.path(data).stat()
            shutil.chown(volume, held.st_uid, held.st_gid)
            volume.chmod(held.st_mode)
        return Chamber(
            self.image.root,
            mounts={**self.torch, data: volume},
            read_only=frozenset(self.torch),
            sealed=True,
            user=self.image.user,
            environment=self.image.environment,
            folder=self.image.folder,
        )


def replay(folder: Path, *, device: str = "cpu", full: bool = False, say: Callable[[str], None] = print) -> Replay:
    """Replay the Dockerfile in `folder`, which must be empty or absent.

    Args:
        folder: where the roots are made.
        device: build argument DEVICE.
        full: install torch as the image does, also where that of this Python would do.
        say: is told each step and how long it took.

    Raises:
        MissingToolError: this machine cannot.
        StepError: a step fails.
    """
    check()
    args = {"DEVICE": device, "REVISION": "replayed"}
    made = stages(DOCKERFILE.read_text(), args)
    seen = outside(folder / "outside")
    lock = (ROOT / "requirements.lock").read_text()
    why = "it is asked for" if full else "it is for CUDA" if device != "cpu" else ""
    why = why or torch_outside.unfit(lock, _python(clean_root(release_of(made[-1].base))))
    if why:
        say(f"torch is installed as the image does: {why}")
    else:
        torch_outside.index(folder / "outside" / "torch-index")
        args["TORCH_INDEX"] = f"file://{SEEN_AT}/torch-index"
    image = Build(folder, Context(ROOT), seen, args, say).image(made)
    if why:
        return Replay(image, {})
    (packages,) = (image.root / "opt/graphtide/lib").glob("python3.*/site-packages")
    mounts = torch_outside.mounts(f"/{packages.relative_to(image.root)}")
    for path in mounts:
        image.path(path).mkdir(exist_ok=True)
    return Replay(image, mounts)


def _python(root: Path) -> str:
    """Return the version of the Python of a root, such as "3.11"."""
    told = subprocess.run(
        ["chroot", str(root), "python3", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"(\d+\.\d+)", told)
    assert found, told
    return found[1]
