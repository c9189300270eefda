"""Two of each process, killed in turn under load: no event is lost or doubled, no short forecast is refused.

Takes minutes: runs where GRAPHTIDE_DRILL_MINUTES says for how many, one kill of each kind a minute.
"""

import os
import shutil
from pathlib import Path

import pytest

from forecasting.bench.servers.base import MissingServerError
from tests.conftest import lacking
from tests.drill.run import drill

MINUTES = float(os.environ.get("GRAPHTIDE_DRILL_MINUTES", "0"))


@pytest.mark.slow
@pytest.mark.skipif(not MINUTES, reason="GRAPHTIDE_DRILL_MINUTES does not say for how long; 2 is enough")
@pytest.mark.timeout(3600)
def test_no_event_is_lost_and_no_forecast_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("nginx") is None:
        lacking("nginx", "nginx is not on the PATH: .ci/servers installs it")
    try:
        found = drill(Path(tmp_path_factory.mktemp("drill")), MINUTES)
    except MissingServerError as missing:
        lacking("kafka", str(missing))
    assert found["killed"]["ingest"] >= 1, "nothing was killed"
    assert found["passed"], found
