"""A process that runs one system and answers JSON lines: `python -m forecasting.bench.worker`.

    {"do": "make", "system", "spec", "task", "backend", "precision"}  ->  {"versions": {…}, "isa": …}
    {"do": "outputs", "steps"}                                       ->  {"outputs": [[[…]]]}
    {"do": "run", "steps", "windows"}                                ->  {"seconds": [one a window], "total_s"}
    {"do": "floor"}                                                  ->  {"seconds": a step}
    {"do": "memory"}                                                 ->  {"peak_bytes"}

An answer of {"error": …} leaves the process usable. It ends at the end of its input.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from forecasting.bench.floor import step_seconds
from forecasting.bench.stacks import StackSpec
from forecasting.bench.systems import Native, System, make_system

_PACKAGES = ("torch", "numpy", "transformers", "mamba-ssm", "triton")


class Worker:
    """What is kept between two questions."""

    def __init__(self) -> None:
        self._spec = StackSpec()
        self._system: System | None = None
        self._inputs: torch.Tensor | None = None

    def make(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a system ready, in place of the last one."""
        self._system = self._inputs = None
        self._spec = StackSpec.from_json(request["spec"])
        self._system = make_system(
            request["system"], self._spec, request["task"], request["backend"], request["precision"]
        )
        packed = self._system.packed if isinstance(self._system, Native) else None
        return {"versions": _versions(), "isa": getattr(packed, "isa", None)}

    def outputs(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the first outputs from the zero state, so that systems can be compared."""
        system = self._made()
        system.reset()
        outputs_BTR, _ = system.run(self._known(request["steps"]), request["steps"])
        return {"outputs": outputs_BTR.cpu().tolist()}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time windows of steps."""
        system, steps = self._made(), request["steps"]
        inputs_BTF = self._known(steps * request["windows"])
        begin = time.perf_counter()
        _, seconds = system.run(inputs_BTF, steps)
        return {"seconds": seconds, "total_s": time.perf_counter() - begin}

    def floor(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Measure the time below which no step can go; see `floor.step_seconds`."""
        system = self._made()
        if not isinstance(system, Native):
            raise ValueError("the floor is that of a stack of ours")
        return {"seconds": step_seconds(system.packed, self._spec)}

    def memory(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Return the most memory that the process has held."""
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

    def _made(self) -> System:
        if self._system is None:
            raise ValueError("no system was made")
        return self._system

    def _known(self, steps: int) -> torch.Tensor:
        if self._inputs is None or self._inputs.shape[1] != steps:
            self._inputs = self._spec.inputs(steps).to(self._spec.device)
        return self._inputs


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Answer until the input ends."""
    # What libraries print must not reach the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(1)
    worker = Worker()
    handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "make": worker.make,
        "outputs": worker.outputs,
        "run": worker.run,
        "floor": worker.floor,
        "memory": worker.memory,
    }
    with torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = handlers[request["do"]](request)
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
