"""One `graphtide serve` on a cluster: Ray Serve, of which there is one, is taken by who is first.

It imports neither torch nor the service: the actor that says so shall be a small process.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from infra.errors import UsageError

RELEASE_S = 5.0


class _Running:
    """An actor that lives as long as the command that serves on its cluster."""


@contextmanager
def alone_on_the_cluster(application: str) -> Iterator[None]:
    """Hold Ray Serve on the connected cluster, and clear away what a command that was killed left there.

    Args:
        application: the name under which this command serves.

    Raises:
        UsageError: something is served there.
    """
    import ray  # noqa: PLC0415 - an extra
    from ray import serve  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    # It tells each of its steps otherwise.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(_Running)
    running = _claimed(actor.options(name=application, namespace=application, scheduling_strategy=here))
    try:
        others = set(serve.status().applications) - {application}
        if others:
            raise _taken(f"Ray Serve serves {', '.join(sorted(others))}")
        serve.shutdown()
        yield
    finally:
        # It ends with this process anyway.
        with suppress(RayError):
            ray.kill(running)


def _claimed(actor: Any) -> Any:
    """Return the actor with its name, which Ray takes some time to give free when a command was killed."""
    until_s = time.monotonic() + RELEASE_S
    while True:
        try:
            return actor.remote()
        except ValueError as error:
            if time.monotonic() > until_s:
                raise _taken("another `graphtide serve` serves") from error
        time.sleep(0.5)


def _taken(who: str) -> UsageError:
    return UsageError(
        f"{who} on this Ray cluster already", place="[ray] address (--ray-address)", fix="use another one"
    )
