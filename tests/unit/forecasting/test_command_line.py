"""The command line begins to work before it has loaded what only some commands need."""

import subprocess
import sys

# Each costs every command a tenth of a second or more.
SLOW = ("numpy", "pandas", "pyarrow", "torch", "psycopg", "kafka", "influxdb_client", "fastapi")


def test_the_commands_are_known_without_what_takes_long_to_import() -> None:
    code = f"import sys, forecasting.cli; print(*(name for name in {SLOW!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert loaded == []
