"""How many replicas of the service there are to be. Ray Serve's controller asks, whose process imports no torch."""

from typing import Any

# What a replica tells the controller beside what Ray counts.
STREAMS = "streams"


def by_requests(context: Any) -> tuple[float, dict[str, Any]]:
    """Return how many replicas are wanted: by the requests that wait or run, without streams, which cost little.

    Args:
        context: of Ray's autoscaler.

    Returns:
        The number of replicas, which Ray bounds and delays; and nothing to remember.
    """
    streams = sum((context.aggregated_metrics or {}).get(STREAMS, {}).values())
    requests = max(0.0, context.total_num_requests - streams)
    return requests / context.config.get_target_ongoing_requests(), {}
