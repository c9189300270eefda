"""The command line begins to work before it has loaded what only some commands need."""

import subprocess
import sys
from pathlib import Path

import pytest

# Each costs every command a tenth of a second or more.
SLOW = ("numpy", "pandas", "pyarrow", "torch", "psycopg", "kafka", "influxdb_client", "fastapi")


def test_the_commands_are_known_without_what_takes_long_to_import() -> None:
    code = f"import sys, forecasting.cli; print(*(name for name in {SLOW!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert loaded == []


def test_a_service_and_one_that_makes_reports_begin_without_what_draws_plots() -> None:
    code = "import sys, forecasting.api.server, forecasting.report_worker; print('bokeh.plotting' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told == "False\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor", "--json"]])
def test_result_that_cannot_be_written_is_told_as_that(arguments: list[str]) -> None:
    code = f"from forecasting.cli import main; main({arguments!r})"
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-c", code], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "graphtide: the result cannot be written to standard output: No space left on device"
    ]


def test_ctrl_c_while_the_command_is_still_loaded_is_silent() -> None:
    code = (
        "import sys\n"
        "class Stopped:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'forecasting.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stopped())\n"
        "from forecasting.cli import main\n"
        "main(['--version'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
