"""The parity suite and the benchmarks of the kernels run where there is nothing but torch, numpy and pytest."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Hides every installed package that torch, numpy and pytest do not themselves need, then does what it is told.
_ALONE = """
import importlib.metadata as metadata, re, sys

needed, waiting = set(), ["torch", "numpy", "pytest", "graphtide"]
while waiting:
    name = re.sub("[-_.]+", "-", waiting.pop()).lower()
    if name in needed:
        continue
    needed.add(name)
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        continue
    if name != "graphtide":
        waiting += [re.match("[A-Za-z0-9._-]+", each).group() for each in required if "extra ==" not in each]
hidden = {
    module
    for module, owners in metadata.packages_distributions().items()
    if not {re.sub("[-_.]+", "-", owner).lower() for owner in owners} & needed
}
assert {"hypothesis", "pandas", "pydantic", "kafka"} <= hidden

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Hide())
"""


def _run_alone(code: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _ALONE + code],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


def test_the_parity_suite_needs_torch_numpy_and_pytest_only() -> None:
    _run_alone(
        "import pytest\n"
        "sys.exit(pytest.main(['-q', '-o', 'addopts=', '-p', 'no:cacheprovider',"
        " 'tests/kernels/test_backends.py', '-k', 'no_steps']))"
    )


def test_the_benchmarks_need_torch_and_numpy_only() -> None:
    _run_alone("import forecasting.bench.prefill, forecasting.bench.rollout, benchmarks.prefill, benchmarks.rollout")
