"""What the README and the tutorial say first: Graphtide installs from its sources, and the demo goes to its end.

The commands run as they are written, in a copy of the sources. What Graphtide depends on is there already: pip is shown
the packages of this Python, so that it builds and installs Graphtide alone, without the compiled parts: those were
compiled for the tests themselves, and the image compiles them again. The model is small and hardly trained.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.docs_blocks import blocks_of
from tests.image.context import Context

ROOT = Path(__file__).parents[2]
PAGES = ("docs/tutorial.md", "README.md")
THIS = "tests/integration/test_docs_install.py"
SETTINGS = {
    "GRAPHTIDE_FORECASTER__D_MODEL": "16",
    "GRAPHTIDE_FORECASTER__N_LAYERS": "1",
    "GRAPHTIDE_TRAINING__MAX_ITERATIONS": "3",
    "OMP_NUM_THREADS": "1",
    "SKBUILD_WHEEL_CMAKE": "false",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_graphtide_installs_and_its_demo_runs_as_the_pages_say(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    context = Context(ROOT)
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "config.toml",
        "stream",
        "models",
        "forecasting",
        "graphtide",
        "infra",
    ):
        context.copy(name, sources if (ROOT / name).is_file() else sources / name)
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("GRAPHTIDE_") and name != "VIRTUAL_ENV"
    }
    # The Python of the tests is the one that `python3` names; what is installed for it is seen after what pip installs.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**clean, **SETTINGS, "PATH": path, "PYTHONPATH": sysconfig.get_path("purelib")}
    for page in PAGES:
        (block,) = [block for block in blocks_of((ROOT / page).read_text()) if block.run_by == THIS]
        ((command, _),) = block.commands()
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{command}\ncommand -v graphtide"], cwd=sources, env=environment,
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{page}: {command}\n{ran.stdout}{ran.stderr}"
        if "activate" in command:
            assert ran.stdout.split()[-1] == str(sources / ".venv/bin/graphtide")
    (installed,) = (sources / ".venv/lib").glob("python3.*/site-packages/graphtide-*.dist-info")
    assert installed.is_dir()
    demo = sources / "graphtide-demo"
    assert (demo / "index.html").read_text().startswith("<!doctype html>")
    assert (demo / "simulated-36500.parquet").is_file()
