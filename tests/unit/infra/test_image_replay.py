"""What the replay of a build reads: Dockerfiles, and the files that .dockerignore lets through."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.image import torch_outside
from tests.image.base import MissingToolError, release_of
from tests.image.context import Context
from tests.image.dockerfile import DockerfileError, expanded, instructions, stages

ROOT = Path(__file__).parents[3]
TEXT = """
# syntax=docker/dockerfile:1
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS build
ENV A=1 B="two words" PATH=/opt/bin:$PATH
RUN one \\
    # a comment between
    && two "$A" \\

    && three
FROM python:$PYTHON-slim-bookworm
COPY --from=build /a /b
HEALTHCHECK --interval=10s --retries=3 \\
  CMD ["ask", "it"]
CMD ["serve"]
"""


def test_stages_and_their_instructions_are_read() -> None:
    build, last = stages(TEXT, {"PYTHON": "3.13"})
    assert (build.base, build.name) == ("python:3.13-slim-bookworm", "build")
    assert (last.base, last.name) == ("python:3.13-slim-bookworm", "")
    env, run = build.instructions
    assert env.pairs({"PATH": "/bin"}) == {"A": "1", "B": "two words", "PATH": "/opt/bin:/bin"}
    assert (run.line, run.name, run.value, run.form()) == (6, "RUN", 'one && two "$A" && three', None)
    copy, health, command = last.instructions
    assert (copy.flags, copy.words({})) == ({"from": "build"}, ["/a", "/b"])
    assert health.flags == {"interval": "10s", "retries": "3"}
    assert health.value == 'CMD ["ask", "it"]'
    assert command.form() == ["serve"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RUN a\n", "line 1: RUN stands before"),
        ("FROM a\nMAINTAINER me\n", "line 2: MAINTAINER is not known"),
        ("FROM a\nRUN b \\\n", "line 2: it goes on over the end"),
        ("FROM a\nRUN <<END\nb\nEND\n", "line 2: .*here-document"),
        ("FROM a\nCOPY --link b c\n", "line 2: a flag without a value"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, says: str) -> None:
    with pytest.raises(DockerfileError, match=says):
        stages(text, {})


def test_variables_have_their_values_or_their_defaults() -> None:
    assert expanded("$A-${B}-${C:-three}-${D}.", {"A": "one", "B": "two"}) == "one-two-three-."


def test_the_dockerfile_of_the_project_is_understood() -> None:
    text = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
    assert {one.name for one in instructions(text)} >= {"FROM", "RUN", "COPY", "USER", "HEALTHCHECK", "ENTRYPOINT"}
    build, last = stages(text, {})
    assert (build.name, release_of(build.base), release_of(last.base)) == ("build", "bookworm", "bookworm")


def test_another_base_than_an_official_python_is_refused() -> None:
    with pytest.raises(MissingToolError, match="alpine"):
        release_of("python:3.12-alpine")


def test_the_last_pattern_that_matches_decides(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("# all\n*\n!src\n**/__pycache__\nsrc/secret\n!src/secret/not.txt\n?.md\n")
    for path in ("src/a.py", "src/deep/__pycache__/a.pyc", "src/secret/key", "src/secret/not.txt", "other/b", "a.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    context = Context(tmp_path)
    assert context.files("src") == ["src/a.py", "src/secret/not.txt"]
    assert not context.files("other")
    goal = tmp_path / "goal"
    context.copy("src", goal)
    assert sorted(file.name for file in goal.rglob("*") if file.is_file()) == ["a.py", "not.txt"]
    with pytest.raises(FileNotFoundError, match="other"):
        context.copy("other", goal)


def test_the_context_of_the_project_holds_the_package_and_no_secret() -> None:
    context = Context(ROOT)
    assert context.files("pyproject.toml")
    assert any(path.startswith("models/general") for path in context.files("models"))
    assert all(context.has(path) for path in ("infra/schema.py", "models/mamba2/kernels/cpu/CMakeLists.txt"))
    hidden = (
        "infra/docker/.env",
        "infra/docker/secrets/key",
        "infra/helm/graphtide/Chart.yaml",
        ".git/config",
        "tests/x.py",
    )
    assert not any(context.has(path) for path in hidden)


def test_pip_finds_a_torch_without_code_in_the_index(tmp_path: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert torch_outside.unfit(lock, "2.7").startswith("this is Python")
    assert torch_outside.unfit("torch==0.1 \\\n", "{}.{}".format(*sys.version_info)).startswith("torch is ")
    torch_outside.index(tmp_path / "index")
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "into")]
    address = (tmp_path / "index").as_uri()
    subprocess.run([*call, "--index-url", address, "torch"], check=True, env={"PIP_CONFIG_FILE": "/dev/null"})
    (installed,) = (tmp_path / "into").iterdir()
    assert "Name: torch" in (installed / "METADATA").read_text()
    folders = torch_outside.mounts("/packages")
    assert folders["/packages/torch"].joinpath("__init__.py").is_file()
