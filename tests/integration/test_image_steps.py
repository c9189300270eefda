"""The Dockerfile builds an image that works: its steps replayed in a clean root, and what comes out run as a container.

`tests.image` says how, and what differs from a build by an engine: above all, torch is that of this Python, bound in,
where it has the version that the image would install. `python -m tests.image --full` installs everything.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.image.base import MissingToolError, check, clean_root
from tests.image.build import Build, StepError
from tests.image.chamber import Chamber
from tests.image.checks import CHECKS, Check
from tests.image.context import Context
from tests.image.dockerfile import stages
from tests.image.outside import Outside
from tests.image.replay import Replay, replay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def clean() -> Path:
    try:
        check()
        return clean_root("bookworm")
    except MissingToolError as missing:
        lacking("image", str(missing))


@pytest.fixture(scope="module")
def replayed(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    folder = tmp_path_factory.mktemp("image")
    try:
        yield replay(folder / "build")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volume") / "data"


@pytest.mark.parametrize("holds", CHECKS, ids=lambda one: one.__name__)
def test_the_image_is_as_it_should_be(holds: Check, replayed: Replay, volume: Path) -> None:
    holds(replayed, volume)


def test_a_container_reaches_nothing_but_its_volume(clean: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    sealed = Chamber(clean, mounts={"/srv": tmp_path}, sealed=True, user="10001:10001", environment={"PATH": "/bin"})
    done = sealed.run(
        ["sh", "-c", "touch /srv/kept /tmp/gone; touch /new /srv/../var/new; cat /proc/net/dev"], timeout_s=60
    )
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert done.stdout.count("Read-only file system") == 2, done.stdout
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines() if ":" in line][-1] == "lo"
    assert not (clean / "tmp" / "gone").exists()


def test_a_step_that_fails_ends_the_build_and_names_its_line(clean: Path, tmp_path: Path) -> None:
    text = "FROM python:3.12-slim-bookworm\nARG WHY=none\nRUN echo before \\\n  && echo $WHY >&2 \\\n  && exit 3\n"
    text += "RUN touch /after\n"
    (tmp_path / "outside").mkdir()
    build = Build(tmp_path, Context(tmp_path), Outside({}, tmp_path / "outside"), {"WHY": "because"}, lambda _: None)
    with pytest.raises(StepError, match=r"line 3: RUN echo before(.|\n)*ends with 3:\nbefore\nbecause"):
        build.image(stages(text, {}))
    assert not (tmp_path / "stage-0" / "after").exists()
    shutil.rmtree(tmp_path / "stage-0")
