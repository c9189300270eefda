"""What a fault run runs on: a store, the service with two workers, its drain, InfluxDB, Redis, a small disk."""

import os
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil

from forecasting.bench.servers.service import PROGRAM, GraphtideService
from forecasting.keys import Scope
from infra.settings import Settings
from stream.ingest import IngestOptions, ingest
from stream.simulation.config import SimulationConfig
from stream.sources.simulate import SimulatedSource
from tests.servers.influxdb import InfluxDBServer
from tests.servers.redis import RedisServer

# The graph that stands still, and the one that grows by what is sent.
STILL, GROWING = "still", "growing"
_STILL = SimulationConfig(years=0.25, events_per_hour=4.0, initial_users=40, communities=4)
_DISK_MB = 384
_FLOOD_BYTES = 1 << 16


class _Service(GraphtideService):
    # Two processes import torch; the machine may be busy with other things.
    start_timeout_s: ClassVar[float] = 300.0


class World:
    """Everything that runs; a context manager that starts and ends it.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store.db"
        self.store_url = f"sqlite:///{self.store}"
        self.disk = folder / "disk"
        self.disk_is_small = False
        self.influxdb = InfluxDBServer(folder / "influxdb")
        self.redis: RedisServer | None = None
        self._folder = folder
        self._stack = ExitStack()
        self._ingest: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.disk.mkdir()
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(self.disk)]
        if shutil.which("mount") and subprocess.run(mounted, capture_output=True, check=False).returncode == 0:
            self.disk_is_small = True
            self._stack.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
        ingest(SimulatedSource(_STILL, graph=STILL), self.store_url, IngestOptions())
        self._stack.enter_context(self.influxdb)
        self.database = self.influxdb.create_database()
        settings = {
            "GRAPHTIDE_API__WORKERS": "2",
            "GRAPHTIDE_API__INGESTION": "true",
            "GRAPHTIDE_API__DEADLINE_S": "30",
            "GRAPHTIDE_API__POLL_INTERVAL_S": "0.3",
            # Small enough to be full soon: memory has to stand still from then on.
            "GRAPHTIDE_API__CACHE_MB": "8",
            "GRAPHTIDE_JOBS__LEASE_S": "3",
            # The load leaves no core idle.
            "GRAPHTIDE_JOBS__WHEN_IDLE": "false",
            "GRAPHTIDE_JOBS__MAX_ATTEMPTS": "50",
            "GRAPHTIDE_JOBS__MAX_ACTIVE_PER_KEY": "50",
            "GRAPHTIDE_SPOOL__IDLE_TIMEOUT_S": "1",
            "GRAPHTIDE_INFLUXDB__URL": self.database.url,
            "GRAPHTIDE_INFLUXDB__ORG": self.database.org,
            "GRAPHTIDE_INFLUXDB__BUCKET": self.database.bucket,
            "GRAPHTIDE_INFLUXDB__TOKEN": self.database.token,
            "GRAPHTIDE_INFLUXDB__MAX_WAIT_S": "1",
        }
        if "cache" in Settings.model_fields:
            self.redis = self._stack.enter_context(RedisServer(self._folder / "redis"))
            settings["GRAPHTIDE_CACHE__REDIS_URL"] = self.redis.url
        self.service = _Service(self._folder / "service", self.store_url, settings, data=self.disk)
        self.token = self.service.make_key("soak", Scope.WRITE)
        self._stack.enter_context(self.service)
        self._stack.callback(self.kill_ingest)
        self.start_ingest()

    def start_ingest(self) -> None:
        """Start what drains the spool into the store, unless it runs."""
        if self._ingest is None or self._ingest.poll() is not None:
            with (self._folder / "ingest.log").open("ab") as log:
                self._ingest = subprocess.Popen(
                    [*PROGRAM, "ingest", "spool", "--follow"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env=self.service.environment(),
                )

    def kill_ingest(self) -> None:
        """End the drain with SIGKILL."""
        if self._ingest is not None:
            self._ingest.kill()
            self._ingest.wait()

    def api_workers(self) -> list[psutil.Process]:
        """Return the serving processes."""
        return self._children("multiprocessing.spawn")

    def job_workers(self) -> list[psutil.Process]:
        """Return the processes of jobs."""
        return self._children("forecasting.job_worker")

    def fill_disk(self) -> None:
        """Leave no byte on the small disk."""
        with suppress(OSError), (self.disk / "flood").open("wb", buffering=0) as flood:
            while True:
                flood.write(os.urandom(_FLOOD_BYTES))

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        (self.disk / "flood").unlink(missing_ok=True)

    def log(self) -> str:
        """Return what the service logged last."""
        return self.service.log_tail()

    def _children(self, word: str) -> list[psutil.Process]:
        found = []
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.service.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if any(word in part for part in child.cmdline()):
                        found.append(child)
        return found
