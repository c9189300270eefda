"""What the service measures of itself, in a Prometheus registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry:
    """The meters of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "graphtide_http_requests", "Requests answered", ["route", "method", "status"], registry=registry
        )
        self.latency = Histogram(
            "graphtide_http_request_duration_seconds",
            "Time from the request to the last byte of its answer",
            ["route"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.queue = Gauge("graphtide_forecast_queue_length", "Forecasts that wait or are computed", registry=registry)
        self.shed = Counter("graphtide_requests_shed", "Requests answered 429 or 503", ["reason"], registry=registry)
        self.cache = Counter("graphtide_forecast_cache", "Look-ups of computed answers", ["result"], registry=registry)
        self.shared_cache = Counter(
            "graphtide_shared_cache", "Look-ups and failures of the shared cache", ["result"], registry=registry
        )
        self.shared_cache_up = Gauge(
            "graphtide_shared_cache_up", "Whether the shared cache, if there is one, is reached", registry=registry
        )
        self.shared = Counter(
            "graphtide_forecast_shared", "Requests that took the forecast another one waited for", registry=registry
        )
        self.model_seconds = Histogram(
            "graphtide_model_seconds", "Time to roll out and encode", buckets=_LATENCY_S, registry=registry
        )
        self.encode_seconds = Histogram(
            "graphtide_state_seconds", "Time to encode or advance a state", registry=registry
        )
        self.degraded = Counter("graphtide_forecast_degraded", "Answers given by a floor", ["graph"], registry=registry)
        self.taken = Counter("graphtide_events_taken", "Events taken over HTTP", ["result"], registry=registry)
        self.subscribers = Gauge("graphtide_streams_open", "Streams that are open", registry=registry)
        self.cut = Counter("graphtide_streams_cut", "Streams cut as their reader was too slow", registry=registry)
        self.store_up = Gauge("graphtide_store_up", "Whether the store could be read last time", registry=registry)
        self.scored = Counter(
            "graphtide_forecast_scored_values",
            "Values of steps that closed while a forecast of them was known",
            ["graph"],
            registry=registry,
        )
        self.inside = Counter(
            "graphtide_forecast_inside_80",
            "Scored values that lay in the central 80 % interval of the forecast one step ahead",
            ["graph"],
            registry=registry,
        )
        self.event_error = Counter(
            "graphtide_forecast_event_error",
            "Sum over scored steps of |median forecast - observed| events",
            ["graph"],
            registry=registry,
        )
        self.events_scored = Counter(
            "graphtide_forecast_events_observed",
            "Sum over scored steps of observed events",
            ["graph"],
            registry=registry,
        )

        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: str, elapsed_s: float) -> None:
        """Count an answer and its time."""
        key = route, method, status
        # Finding a child by its labels takes longer than to count.
        if key not in self._children:
            self._children[key] = self.requests.labels(*key), self.latency.labels(route)
        requests, latency = self._children[key]
        requests.inc()
        latency.observe(elapsed_s)

    def exposition(self) -> bytes:
        """Return all meters in Prometheus' text format."""
        return generate_latest(self.registry)
