"""A build: the stages of a Dockerfile, each replayed in a root that begins as a copy of a clean one."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.image.base import ENVIRONMENT, clean_root, release_of
from tests.image.chamber import Chamber
from tests.image.context import Context
from tests.image.dockerfile import DockerfileError, Instruction, Stage
from tests.image.outside import SEEN_AT, Outside

RUN_TIMEOUT_S = 1800
_LOG_CHARACTERS = 4000


class StepError(Exception):
    """A step of a build fails; the text says which, and ends with what it printed."""


@dataclass
class Image:
    """What a stage has become, as an engine would keep it.

    Attributes:
        root: the folder of its files.
        environment: variables of every process.
        user: whom processes run as, UID:GID.
        folder: where they start.
        shell: what a RUN of the shell's form is given to.
        entrypoint, command: what is run by default.
        healthcheck: the command that asks for its health; its flags are in `healthcheck_flags`.
        volumes: paths that are kept outside the image.
    """

    root: Path
    environment: dict[str, str]
    user: str = "0:0"
    folder: str = "/"
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    healthcheck_flags: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)

    def path(self, inside: str) -> Path:
        """Return the path out here of one in there; a relative one begins in the working directory."""
        return self.root / os.path.normpath(f"/{self.folder}/{inside}" if inside[:1] != "/" else inside).lstrip("/")


class Build:
    """One build of all stages."""

    def __init__(
        self,
        folder: Path,
        context: Context,
        outside: Outside,
        build_args: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        """Prepare a build whose roots lie in `folder`; `say` is told each step with the seconds that it took."""
        self._folder = folder
        self._context = context
        self._outside = outside
        self._build_args = build_args
        self._say = say
        self._made: dict[str, Image] = {}

    def image(self, stages: list[Stage]) -> Image:
        """Replay the stages in their order and return what the last one has become; the others' roots are removed.

        Raises:
            StepError: a step fails.
            DockerfileError: a step is not understood.
            MissingToolError: there is no clean root to begin with.
        """
        for number, stage in enumerate(stages):
            self._made[stage.name or str(number)] = last = self._replayed(stage, self._folder / f"stage-{number}")
        for image in self._made.values():
            if image is not last:
                shutil.rmtree(image.root)
        return last

    def _replayed(self, stage: Stage, root: Path) -> Image:
        subprocess.run(["cp", "--archive", str(clean_root(release_of(stage.base))), str(root)], check=True)
        image = Image(root, dict(ENVIRONMENT))
        args: dict[str, str] = {}
        for step in stage.instructions:
            began_s = time.monotonic()
            self._step(step, image, args)
            self._say(f"{time.monotonic() - began_s:6.1f} s  {step.name} {step.value[:90]}")
        return image

    def _step(self, step: Instruction, image: Image, args: dict[str, str]) -> None:
        variables = {**args, **image.environment}
        match step.name:
            case "ARG":
                name, _, default = step.value.partition("=")
                args[name] = self._build_args.get(name, default)
            case "ENV":
                image.environment |= step.pairs(variables)
            case "LABEL":
                image.labels |= step.pairs(variables)
            case "SHELL":
                image.shell = step.form() or image.shell
            case "USER":
                (image.user,) = step.words(variables)
            case "WORKDIR":
                (image.folder,) = step.words(variables)
                image.path(image.folder).mkdir(parents=True, exist_ok=True)
            case "RUN":
                self._run(step, image, variables)
            case "COPY":
                self._copy(step, image, variables)
            case "VOLUME":
                image.volumes += step.words(variables)
            case "HEALTHCHECK":
                image.healthcheck_flags = step.flags
                image.healthcheck = self._command(
                    Instruction(step.line, "CMD", {}, step.value.removeprefix("CMD").strip()), image
                )
            case "ENTRYPOINT":
                image.entrypoint = self._command(step, image)
            case "CMD":
                image.command = self._command(step, image)
            case "EXPOSE":
                pass  # it opens no port
            case _:
                raise DockerfileError(f"line {step.line}: {step.name} cannot be replayed")

    def _command(self, step: Instruction, image: Image) -> list[str]:
        return step.form() or [*image.shell, step.value]

    def _run(self, step: Instruction, image: Image, variables: Mapping[str, str]) -> None:
        if step.flags:
            raise DockerfileError(f"line {step.line}: flags of RUN are not known here")
        # What the file sets counts before what is set outside; HOME is what engines set where nothing else does.
        environment = {"HOME": "/root", **self._outside.environment, **variables}
        chamber = Chamber(
            image.root,
            mounts={SEEN_AT: self._outside.folder, "/etc/resolv.conf": Path("/etc/resolv.conf")},
            read_only=frozenset({SEEN_AT, "/etc/resolv.conf"}),
            user=image.user,
            environment=environment,
            folder=image.folder,
        )
        done = chamber.run(self._command(step, image), timeout_s=RUN_TIMEOUT_S)
        if done.returncode:
            told = done.stdout[-_LOG_CHARACTERS:]
            raise StepError(f"line {step.line}: RUN {step.value}\nends with {done.returncode}:\n{told}")

    def _copy(self, step: Instruction, image: Image, variables: Mapping[str, str]) -> None:
        *sources, goal = step.words(variables)
        target = image.path(goal)
        if goal.endswith("/") or len(sources) > 1:
            target.mkdir(parents=True, exist_ok=True)
        if set(step.flags) - {"from"}:
            raise DockerfileError(f"line {step.line}: a flag of COPY is not known here")
        if "from" not in step.flags:
            for source in sources:
                self._context.copy(source, target)
            return
        other = self._made[step.flags["from"]]
        for source in sources:
            # As links: the other stage is done with, and gigabytes need not be there twice.
            call = ["cp", "--archive", "--link", "--no-target-directory", str(other.path(source)), str(target)]
            subprocess.run(call, check=True)
