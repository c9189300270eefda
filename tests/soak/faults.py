"""What goes wrong in a fault run, one thing at a time, each undone before the next."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.soak.ledger import Ledger
from tests.soak.world import STILL, World

Fault = Callable[[World, Ledger, threading.Event, float], None]


def influxdb_away(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """InfluxDB crashes and comes back."""
    ledger.fault("influxdb killed", for_s=seconds)
    world.influxdb.kill()
    over.wait(seconds)
    world.influxdb.start()


def redis_away(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """Redis crashes and comes back, where there is one."""
    if world.redis is None:
        ledger.fault("redis killed", skipped="this version has no shared cache")
        return
    ledger.fault("redis killed", for_s=seconds)
    world.redis.kill()
    over.wait(seconds)
    world.redis.start()


def redis_hangs(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """Redis keeps its connections and answers nothing, where there is one."""
    if world.redis is None:
        ledger.fault("redis paused", skipped="this version has no shared cache")
        return
    ledger.fault("redis paused", for_s=seconds)
    world.redis.pause()
    over.wait(seconds)
    world.redis.resume()


def api_worker_killed(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """One of the serving processes is killed, and replaced by the service itself; never the last one that is up."""
    workers = world.api_workers()
    _kill(workers if len(workers) > 1 else [], "serving process killed", ledger)
    over.wait(seconds)


def job_worker_killed(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """The process of the jobs is killed, and replaced by the service itself."""
    _kill(world.job_workers(), "job process killed", ledger)
    over.wait(seconds)


def ingest_killed(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """The drain of the spool is killed, and started again as a supervisor would."""
    ledger.fault("drain killed", for_s=seconds)
    world.kill_ingest()
    over.wait(seconds)
    world.start_ingest()


def disk_full(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """The disk of jobs, keys and spool has no byte left, where a small one could be mounted."""
    if not world.disk_is_small:
        ledger.fault("disk full", skipped="no file system can be mounted here")
        return
    ledger.fault("disk full", for_s=seconds)
    world.fill_disk()
    try:
        over.wait(seconds)
    finally:
        world.free_disk()


def slow_clients(world: World, ledger: Ledger, over: threading.Event, seconds: float) -> None:
    """Clients that connect and say nothing, say half of it, or ask for much and read none of it."""
    ledger.fault("slow clients", for_s=seconds, connections=60)
    ask = f"GET /v1/graphs/{STILL}/snapshots?limit=10000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.token}\r\n"
    said = (
        "",
        ask,
        f"{ask}\r\n",
        f"POST /v1/graphs/{STILL}/forecasts HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{{",
    )
    opened = []
    for number in range(60):
        with suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", world.service.port), 5)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(said[number % len(said)].encode())
            opened.append(connection)
    over.wait(seconds)
    for connection in opened:
        connection.close()


def _kill(processes: list[psutil.Process], kind: str, ledger: Ledger) -> None:
    if not processes:
        ledger.fault(kind, skipped="it is not up at the moment")
        return
    # The oldest of several lives on: only a process that was there for long tells whether memory stands still.
    victim = max(processes, key=_begun_s)
    ledger.fault(kind, pid=victim.pid)
    if kind.startswith("serving"):
        ledger.excuse()
    with suppress(psutil.NoSuchProcess):
        victim.kill()


def _begun_s(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


FAULTS: tuple[Fault, ...] = (
    job_worker_killed,
    influxdb_away,
    disk_full,
    api_worker_killed,
    slow_clients,
    redis_away,
    ingest_killed,
    redis_hangs,
)
