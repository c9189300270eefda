"""A minute of the fault run: every fault once under mixed load. `python benchmarks/faults.py` runs it for longer."""

from pathlib import Path

import pytest

from forecasting.bench.servers.base import MissingServerError
from tests.conftest import lacking
from tests.soak.run import run


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_service_stands_on_may_break_and_nothing_is_lost_or_wrong(tmp_path: Path) -> None:
    try:
        # Each fault once, on average for as long as a lease of a job is here.
        found = run(tmp_path, seconds=30, seed=2, malformed=300, pause_s=2.5, fault_s=3.0)
    except MissingServerError as missing:
        lacking("influxdb" if "influx" in str(missing) else "redis", str(missing))
    assert found["violations"] == [], found["log"]
    assert found["compared"]["events"] > 0
    assert found["compared"]["short_answers"] > 20
    assert found["compared"]["jobs"] > 0
    assert found["malformed"] == 300
    kinds = {fault["kind"] for fault in found["faults"] if "skipped" not in fault}
    assert {"influxdb killed", "serving process killed", "job process killed", "drain killed", "slow clients"} <= kinds
