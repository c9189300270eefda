"""A Ray cluster: one of its own on this machine, or one that runs elsewhere; bounded tasks on it, retried by Ray."""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import Any, TypeVar

import torch

from forecasting.scaleout.versions import made_of, refuse_others
from infra.cores import allowed_cores
from infra.errors import GraphtideError, UsageError
from infra.settings import RaySettings

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks that are handed to the cluster for each of its cores: one runs, the next is there when it ends.
IN_FLIGHT_A_CORE = 2
POLL_S = 0.5
CONNECT_TIMEOUT_S = 5.0
# Ray phones home unless it is told not to. A cluster of its own stays on the loopback address, which Ray itself does
# on the systems that this variable is named for; that every process needs a token is Ray's default for such a cluster.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Ray leaves out lines that several workers write, and colours names.
_ALL_LINES = {"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


class Cluster:
    """A connection to a Ray cluster; made by `connected`.

    Args:
        retries: times that Ray begins a task again whose worker or node was lost.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def cores(self) -> int:
        """Return how many tasks the cluster runs at once now; nodes may come and go."""
        return max(1, int(_resources().get("CPU", 0)))

    def share(self, value: Any) -> Any:
        """Return a reference to `value`, which goes once to each node that needs it; `each` takes it as `shared`."""
        import ray  # noqa: PLC0415 - an extra

        return ray.put(value)

    def each(
        self,
        function: Callable[..., Result],
        items: Iterable[Item],
        on_result: Callable[[Item, Result], None],
        *,
        shared: Sequence[Any] = (),
        named: Callable[[Item], str],
        gpus: int = 0,
    ) -> None:
        """Call `function(item, *shared)` for every item in the workers of the cluster, one core each.

        A task whose worker or node is lost begins again elsewhere, so `function` must change nothing but what it
        returns. Whatever ends this call cancels what was not finished.

        Args:
            function: a module's own function.
            items: what to do; taken a few at a time, when there is room for them.
            on_result: given each item and what came of it, as they are finished.
            shared: values or references from `share`.
            named: what an item is called in an error.
            gpus: GPUs that a task needs.

        Raises:
            GraphtideError: what `function` raised, or a worker was lost more often than Ray retries.
            UsageError: the cluster has no node with so many GPUs.
        """
        import ray  # noqa: PLC0415

        if gpus and _resources().get("GPU", 0) < gpus:
            raise UsageError("no node of the Ray cluster has a GPU", fix="set [training] device to cpu or auto")
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=self._retries)(_work)
        waiting, running = iter(items), dict[Any, Item]()
        expected = made_of()
        try:
            while True:
                room = IN_FLIGHT_A_CORE * self.cores() - len(running)
                for item in islice(waiting, max(0, room)):
                    running[task.remote(expected, function, item, *shared)] = item
                if not running:
                    return
                finished, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
                for reference in finished:
                    item = running.pop(reference)
                    on_result(item, _result(reference, named(item), self._retries))
        except BaseException:
            for reference in running:
                ray.cancel(reference, force=True)
            raise

    def on_each_node(self, function: Callable[[Item], Any], item: Item) -> None:
        """Call `function(item)` once on each node that has cores; all are waited for.

        Raises:
            GraphtideError: what `function` raised.
        """
        import ray  # noqa: PLC0415
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        task, expected = ray.remote(num_cpus=0, max_retries=0)(_work), made_of()
        running = {
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                expected, function, item
            ): node["NodeManagerHostname"]
            for node in nodes()
        }
        for reference, host in running.items():
            _result(reference, f"the look at the node {host}", 0)


def nodes() -> list[dict[str, Any]]:
    """Return what Ray tells of the nodes that have cores now."""
    import ray  # noqa: PLC0415

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


@contextmanager
def connected(settings: RaySettings, *, shows_logs: bool = False) -> Iterator[Cluster]:
    """Yield a cluster: that of `[ray] address`, else one that is started here and ended with the context.

    Args:
        settings: which cluster.
        shows_logs: what the workers write to their standard error comes out at that of this process, line by line.

    Raises:
        UsageError: Ray is not installed, or no cluster answers at the address.
        GraphtideError: the local cluster cannot be started.
    """
    require_ray()
    os.environ.update(_QUIET)
    if shows_logs:
        os.environ.update(_ALL_LINES)
    if settings.address:
        _knock(settings.address)
    if not settings.address or _is_here(settings.address):
        for name, value in _LOOPBACK.items():
            os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - reads the environment

    before = signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix="graphtide-ray-", ignore_cleanup_errors=True) as folder:
        try:
            # Workers look for modules where their driver stood: there must be no `models.py` of the user's.
            with contextlib.chdir("/"):
                _begin(settings, folder, shows_logs=shows_logs)
            # In a main thread Ray puts a handler of its own in the place of ours.
            if signal.getsignal(signal.SIGTERM) is not before:
                signal.signal(signal.SIGTERM, before)
            if _resources().get("CPU", 0) < 1:
                raise UsageError("the Ray cluster has no core for tasks", place="[ray] address", fix="add a node to it")
            yield Cluster(settings.retries)
        finally:
            ray.shutdown()


def require_ray(*also: str) -> None:
    """Check that Ray is installed.

    Args:
        also: modules that are needed besides.

    Raises:
        UsageError: one of them is not.
    """
    for name in ("ray", *also):
        if find_spec(name) is None:
            raise UsageError(
                f"--engine ray needs {name.capitalize() if name == 'ray' else name}, which is not installed",
                fix='install the extra: pip install "graphtide[ray]"',
            )


def _knock(address: str) -> None:
    """Connect once: Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(
            f"the address of a Ray cluster cannot be {address!r}",
            place="[ray] address (--ray-address)",
            fix="write host:port, as `ray start --head` says it",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, error) from error


def _is_here(address: str) -> bool:
    from forecasting.api.open_mode import is_loopback  # noqa: PLC0415 - imports the web framework, as no worker needs

    return is_loopback(address.rpartition(":")[0].strip("[]"))


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"no Ray cluster answers at {address}: {_first_line(error)}",
        place="[ray] address (--ray-address)",
        fix="start one (ray start --head), name its host:port, and set RAY_AUTH_TOKEN if it asks for a token",
    )


def _begin(settings: RaySettings, folder: str, *, shows_logs: bool) -> None:
    import ray  # noqa: PLC0415

    # Ray tells lost nodes on the standard output, where a program reads ours, and has no public switch for it.
    ray._private.worker._worker_logs_enabled = shows_logs
    common: dict[str, Any] = {"log_to_driver": shows_logs, "logging_level": "ERROR", "namespace": "graphtide"}
    if settings.address:
        try:
            ray.init(address=settings.address, **common)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(settings.address, error) from error
        return
    try:
        ray.init(
            address="local",
            num_cpus=settings.workers or max(1, allowed_cores() - 1),
            num_gpus=torch.cuda.device_count(),
            object_store_memory=settings.object_store_mb << 20,
            include_dashboard=False,
            _temp_dir=folder,
            **common,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        free_mb = shutil.disk_usage(folder).free >> 20
        raise GraphtideError(
            f"a local Ray cluster cannot be started: {_first_line(error)}",
            place=f"{folder}, {free_mb:,} MB free",
            fix="make [ray] object_store_mb or workers smaller, or use --engine local",
        ) from error


def _work(expected: dict[str, str], function: Callable[..., Result], item: Any, *shared: Any) -> Result:
    """Run in a worker."""
    refuse_others(expected)
    torch.set_num_threads(1)
    try:
        return function(item, *shared)
    except GraphtideError as error:
        error.place = f"{error.place}, on {socket.gethostname()}" if error.place else f"on {socket.gethostname()}"
        raise


def _result(reference: Any, name: str, retries: int) -> Any:
    import ray  # noqa: PLC0415
    from ray import exceptions  # noqa: PLC0415

    try:
        return ray.get(reference)
    except exceptions.RayTaskError as error:
        raise error.cause from None
    except exceptions.RaySystemError as error:
        raise GraphtideError(
            f"{name} failed in its worker: {_first_line(error)}",
            fix="install the same versions of graphtide and Ray on every node of the cluster",
        ) from error
    except exceptions.RayError as error:
        raise GraphtideError(
            f"the worker of {name} was lost {retries + 1} times: {_first_line(error)}",
            fix="if memory ran out, give nodes fewer cores; what was finished is kept, so run the command again",
        ) from error


def _resources() -> dict[str, float]:
    import ray  # noqa: PLC0415

    found: dict[str, float] = ray.cluster_resources()
    return found


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
