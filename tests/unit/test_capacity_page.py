"""The capacity model: its page is that of the measured rates, and it grows as it should."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RATES = {
    "event": 10.0,
    "snapshot": 100.0,
    "advance": 1000.0,
    "forecast-168": 10_000.0,
    "state-bytes": 1e6,
    "process-bytes": 1e9,
    "event-bytes": 10.0,
    "snapshot-bytes": 100.0,
}


@pytest.fixture
def capacity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("capacity_table")


def test_the_page_is_written_from_the_rates() -> None:
    checked = subprocess.run([sys.executable, BENCHMARKS / "capacity_table.py", "--check"], check=False)
    assert checked.returncode == 0, "run: python benchmarks/capacity_table.py"


def test_a_load_is_added_up(capacity: ModuleType) -> None:
    given = capacity.Assumptions(peak=2.0, utilisation=0.5, trainings_a_year=0, keep_days=10)
    found = capacity.need(86_400_000_000, 1000, RATES, given)
    # A million events a second at 10 us are 10 cores on average, 20 at the peak, 40 at half use; a thousand graphs by
    # the hour add 24,000 times 100 us + 1 ms + 10 ms a day, which is 0.0031 cores.
    assert found.cores == 41
    assert found.memory_gb == pytest.approx(41 + 1)
    assert found.disk_gb == pytest.approx(10 * (864 + 0.0024))
    assert found.month == pytest.approx(41 * 25 + 42 * 3 + found.disk_gb * 0.1)
    assert found.events_s_a_graph == pytest.approx(2000)


def test_trainings_take_their_share(capacity: ModuleType) -> None:
    lazy, eager = (capacity.Assumptions(trainings_a_year=times) for times in (0, 365))
    more = [capacity.need(1e6, 1e6, RATES, given).cores for given in (lazy, eager)]
    # A million trainings of 150 s a day.
    assert more[1] - more[0] == pytest.approx(150e6 / 86_400 / lazy.utilisation, abs=1)
