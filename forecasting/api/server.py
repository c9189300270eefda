"""Running the service: the socket, the serving processes, and who may be reached from where."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.process import BaseProcess

import uvicorn
from starlette.types import ASGIApp

from forecasting import interrupts, tracing
from forecasting.api.app import build
from forecasting.api.one_write import OneWriteProtocol
from forecasting.api.open_mode import is_loopback
from forecasting.api.redis_store import RedisStore
from forecasting.api.supervisor import Supervisor
from forecasting.configured_schedules import take_schedules
from forecasting.job_processes import forecast_processes, report_processes
from forecasting.keys import Keys
from forecasting.service_file import ServiceFile
from infra.errors import GraphtideError, UsageError
from infra.settings import ApiSettings, Settings
from infra.telemetry import configure_logging
from models.mamba2.kernels.contract import BackendUnavailableError
from models.mamba2.kernels.registry import get_backend

BACKLOG = 2048
# A process that does not answer its parent for so long is replaced; on a busy machine, importing torch takes that.
WORKER_START_S = 60
# The event loop waits no longer for the thread that computes: Python's own 5 ms would be most of a short answer.
SWITCH_INTERVAL_S = 0.0005


def serve(settings: Settings, *, log_level: int, on_ready: Callable[[str], None]) -> None:
    """Serve until the process is told to stop; requests under way are finished first.

    Args:
        settings: all of them.
        log_level: of the `logging` module.
        on_ready: told the address once the socket is bound.

    Raises:
        UsageError: the address cannot be bound, lies open to others without keys, or a backend cannot run here.
        StoreError: the service's file cannot be used.
    """
    prepare(settings)
    api = settings.api
    with ExitStack() as stack:
        bound = stack.enter_context(bind(api))
        address = address_of(api, bound)
        config = uvicorn.Config(
            partial(_application, settings, log_level),
            factory=True,
            workers=api.workers,
            loop="uvloop",
            http=OneWriteProtocol,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=api.drain_s,
            timeout_worker_healthcheck=WORKER_START_S,
            backlog=BACKLOG,
        )
        stack.enter_context(forecast_processes(settings, log_level=log_level))
        stack.enter_context(report_processes(settings, log_level=log_level))
        on_ready(address)
        if api.workers > 1:
            supervisor = Supervisor(config, sockets=[bound])
            supervisor.run()
            started = supervisor.ended_by is not None
        else:
            server = uvicorn.Server(config)
            server.run(sockets=[bound])
            started = server.started
        if not started:
            raise GraphtideError("the service could not start", fix="its log above says why")


def prepare(settings: Settings) -> None:
    """Check what can be checked before anything is started, and make the service's file with the settings' schedules.

    Raises:
        UsageError: the address lies open to others without keys, or something that is set cannot work here.
        StoreError: the service's file cannot be used.
    """
    try:
        get_backend()
    except BackendUnavailableError as error:
        raise UsageError(str(error), fix="unset it, or see `graphtide doctor` for what can run here") from error
    tracing.check(settings.tracing)
    if settings.cache.redis_url:
        # Made to be refused here, and not in each process: nothing is connected yet.
        RedisStore(settings.cache)
    take_schedules(settings)
    with ServiceFile(settings.api.service_db) as file:
        refuse_exposure(settings.api, has_keys=Keys(file).exist())


def address_of(api: ApiSettings, bound: socket.socket) -> str:
    """Return the address of the service that listens on a socket."""
    return f"http://{f'[{api.host}]' if ':' in api.host else api.host}:{bound.getsockname()[1]}"


def refuse_exposure(api: ApiSettings, *, has_keys: bool) -> None:
    """Refuse to listen beyond this machine without keys, unless the settings say so.

    Raises:
        UsageError: everyone who reaches the port could read everything.
    """
    if has_keys or api.allow_open or is_loopback(api.host):
        return
    raise UsageError(
        f"{api.host} can be reached from other machines, and there is no API key",
        place="[api] host (--host)",
        fix="make a key: graphtide keys create NAME --graph '*'; or set [api] allow_open = true (--allow-open)",
    )


def bind(api: ApiSettings) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises:
        UsageError: it cannot.
    """
    try:
        family = socket.getaddrinfo(api.host, api.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((api.host, api.port), family=family, backlog=BACKLOG)
        # Inherited by the connections: the system gives up one whose reader takes nothing, with what waits for it.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * api.send_timeout_s))
        return bound
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise UsageError(
            f"cannot listen on {api.host} port {api.port}: {reason}",
            place="[api] host, port",
            fix="name another with --host and --port; port 0 takes a free one",
        ) from error


def _application(settings: Settings, log_level: int) -> ASGIApp:
    # Runs in each serving process, which has no logging of its own yet.
    begin_process(log_level)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        # The server listens to signals by now.
        interrupts.let_through()
    return build(settings)


def begin_process(log_level: int) -> None:
    """Set up a process that answers requests: its turns between threads, and what it logs."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    configure_logging(log_level)
    logging.getLogger("graphtide.audit").setLevel(logging.INFO)


def _end_with(parent: BaseProcess) -> None:
    """End this process when the one that started it is gone: nobody would ever end it, and it would keep the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
