"""What the processor is, as result files tell it. Standard library only."""

import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Processor:
    """What Linux says of the processor.

    Attributes:
        model: its name; its architecture where no name is known.
        generation: what tells generations apart; a virtual machine may hide the name, this it does not.
        flags: the features that it has, by the names of `/proc/cpuinfo`.
    """

    model: str
    generation: str
    flags: frozenset[str]


def processor(info: Path = CPUINFO) -> Processor:
    """Read what `/proc/cpuinfo` says; without that file little is known."""
    model = platform.processor() or platform.machine()
    generation: dict[str, str] = {}
    flags: set[str] = set()
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in {"cpu family", "model"}:
                generation[key.strip()] = value.strip()
            elif key.strip() in {"flags", "Features"}:
                flags.update(value.split())
    numbers = ", ".join(f"{name} {number}" for name, number in generation.items())
    return Processor(model, numbers, frozenset(flags))
