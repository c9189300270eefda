"""The forecast service on a Ray cluster: replicas that Ray Serve starts, watches and routes to, until it is ended.

Ray Serve's own proxy answers on every node that has a replica, with `edge` before it. Ray can put HAProxy there, which
it does not do unless told to; that is a package of its own, under the GPL, and not needed.
"""

import logging
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from forecasting.api.server import address_of, bind, prepare
from forecasting.job_processes import forecast_processes, report_processes
from forecasting.scaleout import edge
from forecasting.scaleout.alone import alone_on_the_cluster
from forecasting.scaleout.cluster import Cluster, connected, nodes, require_ray
from forecasting.scaleout.ground import Ground
from forecasting.scaleout.replica import HEALTH_PERIOD_S, UNASKED_S, Replica
from forecasting.scaleout.scaling import by_requests
from forecasting.scaleout.source import Source
from infra.errors import GraphtideError, StoreError, UsageError
from infra.settings import ApiSettings, Settings

APPLICATION = "graphtide"
# A replica that does not answer for so long is replaced; on a busy machine, importing torch takes that.
HEALTH_TIMEOUT_S = 60.0
# So long for a proxy to begin, or to say that it is well. Left alone, Ray ends one that takes 5 seconds to begin, and
# the next imports everything anew on the same busy machine.
_PROXY_TIMEOUT_S = 60
# Times that a replica is begun anew before the start counts as failed.
START_TRIES = 3
# How often Ray is told of the requests, and over how long it takes their mean.
METRICS_PERIOD_S = 1.0
LOOK_BACK_S = 5.0
_WATCH_S = 0.5
# Ray Serve's controller may die; Ray begins it again, and the replicas go on meanwhile.
UNKNOWN_S = 30.0
# Requests beside streams and queue that a replica takes before Ray asks another one: the service itself says what is
# too much, so this has to be more.
_ROOM = 64
# Kept as long as a connection of `graphtide serve`.
_KEEP_ALIVE_S = 5
# What `ray.serve` and the router import beyond what Ray itself and the service do.
_IMPORTED = ("grpc", "grpc_reflection", "mmh3")
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_log = logging.getLogger(__name__)


def serve_on_ray(settings: Settings, *, log_level: int, on_ready: Callable[[str], None]) -> None:
    """Serve until an exception ends it, as signals raise one; requests under way are finished first.

    Long forecasts and reports are computed by processes of this machine, as those of `graphtide serve`.

    Args:
        settings: all of them.
        log_level: of the `logging` module.
        on_ready: told the address once all replicas that there are to be at least answer.

    Raises:
        UsageError: the address cannot be bound or lies open to others without keys, or the cluster does not fit.
        StoreError: the service's file cannot be used, here or on a node.
        GraphtideError: the replicas cannot be started, or the cluster is gone.
    """
    require_ray(*_IMPORTED)
    chosen = settings.ray_serve
    if chosen.max_replicas < chosen.min_replicas:
        raise UsageError(
            f"{chosen.max_replicas} replicas at most are fewer than {chosen.min_replicas} at least",
            place="[ray_serve] min_replicas, max_replicas (--min-replicas, --max-replicas)",
            fix="make the second the larger one",
        )
    prepare(settings)
    with ExitStack() as stack:
        host, port, address = stack.enter_context(_reserved(settings.api))
        cluster = stack.enter_context(connected(settings.ray, shows_logs=True))
        ground = Ground.of(settings)
        _check_cluster(cluster, ground, chosen.min_replicas)
        if not settings.ray.address:
            # No node will join.
            chosen = chosen.model_copy(update={"max_replicas": min(chosen.max_replicas, cluster.cores())})
            ground = replace(ground, settings=ground.settings.model_copy(update={"ray_serve": chosen}))
        stack.enter_context(alone_on_the_cluster(APPLICATION))
        stack.enter_context(forecast_processes(settings, log_level=log_level))
        stack.enter_context(report_processes(settings, log_level=log_level))
        stack.enter_context(_deployed(ground, host, port, log_level))
        _watch(lambda: on_ready(address))


def serve_environment(settings: Settings) -> dict[str, str]:
    """Return the variables of the processes of Ray Serve."""
    longest = max(settings.api.max_body_bytes, settings.spool.max_body_bytes)
    # Ray warns of settings of its own that may be named otherwise one day, in each process.
    return edge.environment(max_body_bytes=longest, send_timeout_s=settings.api.send_timeout_s) | {
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(_PROXY_TIMEOUT_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(_PROXY_TIMEOUT_S),
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning:ray.serve.config",
    }


@contextmanager
def _reserved(api: ApiSettings) -> Iterator[tuple[str, int, str]]:
    """Yield host, port and address, where nobody else listens; the proxies can, as they share their port."""
    with ExitStack() as stack:
        with bind(api) as bound:
            name = bound.getsockname()
            held = stack.enter_context(socket.socket(bound.family, socket.SOCK_STREAM))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            address = address_of(api, bound)
        held.bind(name)
        yield name[0], name[1], address


def _check_cluster(cluster: Cluster, ground: Ground, replicas: int) -> None:
    ground.refuse_hosts({node["NodeManagerHostname"] for node in nodes()})
    cluster.on_each_node(Ground.check, ground)
    source = Source.of(ground.settings)
    # A store that is away here too is waited for, as `graphtide serve` does.
    if _is_there(source):
        cluster.on_each_node(_look_at, source)
    if cluster.cores() < replicas:
        raise UsageError(
            f"{replicas} replicas need a core each, and the Ray cluster has {cluster.cores()}",
            place="[ray_serve] min_replicas (--min-replicas)",
            fix="make it smaller, add nodes, or set [ray] workers for a cluster that is started here",
        )


def _is_there(source: Source) -> bool:
    try:
        _look_at(source)
    except StoreError:
        return False
    return True


def _look_at(source: Source) -> None:
    with source.open() as reader:
        reader.graphs()


@contextmanager
def _deployed(ground: Ground, host: str, port: int, log_level: int) -> Iterator[None]:
    """Have Ray Serve start the application, and end it with the context."""
    from ray import serve  # noqa: PLC0415
    from ray.serve.schema import LoggingConfig  # noqa: PLC0415

    environment = {"env_vars": serve_environment(ground.settings)}
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    deployment = _deployment(ground.settings, environment, quiet)
    try:
        try:
            serve.start(
                proxy_location="EveryNode",
                http_options={"host": host, "port": port, "keep_alive_timeout_s": _KEEP_ALIVE_S},
                logging_config=quiet,
                controller_options={"runtime_env": environment},
            )
        except (RuntimeError, TimeoutError) as error:
            raise GraphtideError(
                f"Ray Serve cannot be started: {_last_line(str(error))}", place=f"{host} port {port}"
            ) from error
        target = serve.RunTarget(deployment.bind(ground, log_level), name=APPLICATION, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)
        yield
    finally:
        _end()


def _end() -> None:
    """Let the replicas finish what they are at while the proxies still pass it on, then end those too."""
    from ray import serve  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415

    # Where nobody is left to be asked, or a replica does not end, what there is is ended without it.
    with suppress(RayError, RayServeException, TimeoutError):
        serve.delete(APPLICATION)
    serve.shutdown()


def _deployment(settings: Settings, environment: dict[str, Any], logs: Any) -> Any:
    """Return what Ray Serve is told of the replicas."""
    from ray import serve  # noqa: PLC0415
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy  # noqa: PLC0415

    chosen = settings.ray_serve
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        scaling = AutoscalingConfig(
            min_replicas=chosen.min_replicas,
            max_replicas=chosen.max_replicas,
            target_ongoing_requests=chosen.requests,
            upscale_delay_s=chosen.scale_out_s,
            downscale_delay_s=chosen.scale_in_s,
            metrics_interval_s=METRICS_PERIOD_S,
            look_back_period_s=LOOK_BACK_S,
            policy=AutoscalingPolicy(policy_function=by_requests),
        )
        return serve.deployment(
            serve.ingress()(Replica),
            name="forecasts",
            ray_actor_options={"num_cpus": 1, "runtime_env": environment},
            max_ongoing_requests=settings.api.max_streams + settings.api.queue_size + _ROOM,
            autoscaling_config=scaling,
            health_check_period_s=HEALTH_PERIOD_S,
            health_check_timeout_s=HEALTH_TIMEOUT_S,
            graceful_shutdown_wait_loop_s=0.2,
            graceful_shutdown_timeout_s=settings.api.drain_s + UNASKED_S + HEALTH_PERIOD_S,
            request_router_config={"request_router_class": _ROUTER},
            max_constructor_retry_count=START_TRIES,
            logging_config=logs,
        )


def _watch(on_ready: Callable[[], None]) -> None:
    """Follow the application until an exception ends this; say what becomes of it.

    Raises:
        GraphtideError: it cannot be started, or nobody knows it for `UNKNOWN_S`.
    """
    before = ""
    is_ready = False
    known_s = time.monotonic()
    while True:
        found = _application()
        status = "unknown to Ray Serve" if found is None else str(found.status.value)
        if found is not None:
            known_s = time.monotonic()
            if status == "DEPLOY_FAILED" and not is_ready:
                raise GraphtideError(
                    f"the replicas cannot be started: {_last_line(_messages(found))}", fix="the log above says more"
                )
        elif time.monotonic() - known_s > UNKNOWN_S:
            raise GraphtideError(
                "the Ray cluster is gone, or someone else ended what was served there",
                place="[ray] address (--ray-address)",
                fix="look at its head node, and serve again: nothing is lost",
            )
        if status == "RUNNING" and not is_ready:
            is_ready = True
            on_ready()
        elif is_ready and status != before:
            _log.log(logging.INFO if status == "RUNNING" else logging.WARNING, "the replicas are %s", status)
        before = status
        time.sleep(_WATCH_S)


def _application() -> Any:
    """Return what Ray Serve says of the application; None while it says nothing."""
    from ray import serve  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415

    try:
        return serve.status().applications.get(APPLICATION)
    except (RayError, RayServeException, ConnectionError, TimeoutError):
        return None


def _messages(application: Any) -> str:
    return "\n".join(part.message for part in application.deployments.values() if part.message) or application.message


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it does not say why"
