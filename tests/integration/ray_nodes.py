"""A Ray cluster of two nodes on this machine, for tests."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MEMORY = 80 << 20


@contextmanager
def two_nodes(cores: int) -> Iterator[Any]:
    """Yield a cluster whose nodes have so many cores each, on paper; a test that removes one adds another."""
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    os.environ["RAY_AUTH_MODE"] = "token"
    # On a new machine there is none at home yet, and a cluster of this kind makes none.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - reads the environment

    # Nobody looks at the dashboard, whose process imports as much as a worker.
    head = {"num_cpus": cores, "object_store_memory": MEMORY, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        add_node(nodes, cores)
        yield nodes
    finally:
        nodes.shutdown()


def add_node(nodes: Any, cores: int) -> None:
    """Add a node to the cluster."""
    nodes.add_node(num_cpus=cores, object_store_memory=MEMORY)


def lose_a_node(nodes: Any) -> None:
    """Kill a node that is not the head."""
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
