"""The command line begins to work before it has loaded what only some commands need."""

import json
import os
import signal
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


def test_letters_that_the_output_cannot_show_are_escaped(tmp_path: Path) -> None:
    # Its last byte is no UTF-8: a name from a disk of another encoding.
    folder = tmp_path / os.fsdecode("größe 日𝛑 ".encode() + b"\xf6")
    folder.mkdir()

    def said(encoding: str, *arguments: str) -> str:
        code = f"import sys; sys.path[:] = {sys.path!r}; from forecasting.cli import main; main({list(arguments)!r})"
        environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "1"}
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, cwd=folder)
        return ran.stdout.decode(encoding)

    assert r"\u2026" in said("ascii", "train", "--help")
    assert r"gr\u00f6\u00dfe \u65e5\ud835\uded1 \udcf6" in said("ascii", "doctor")
    # What is JSON stays JSON.
    assert str(folder) in json.loads(said("cp1252", "doctor", "--json"))["findings"][-1]["found"]


def run_code(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


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
    ran = run_code(code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_process_ends_is_no_traceback(sent: signal.Signals) -> None:
    code = (
        "import atexit, signal\n"
        # A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"atexit.register(signal.raise_signal, {int(sent)})\n"
        "from forecasting.cli import main\n"
        "main(['--version'])\n"
    )
    ran = run_code(code)
    assert (ran.returncode, ran.stderr) == (-sent, "")
    assert ran.stdout.startswith("graphtide ")


def test_a_second_ctrl_c_while_the_first_is_told_of_is_no_traceback() -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from forecasting.cli import app, main\n"
        "app._unforeseen = lambda _: signal.raise_signal(signal.SIGINT)\n"
        "app.app = lambda *_, **__: 1 / 0\n"
        "main([])\n"
    )
    ran = run_code(code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
