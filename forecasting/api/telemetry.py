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
        self.data_age = Gauge(
            "graphtide_data_age_seconds", "Age of the last observed step's end", ["graph"], registry=registry
        )
        self.taken = Counter("graphtide_events_taken", "Events taken over HTTP", ["result"], registry=registry)
        self.subscribers = Gauge("graphtide_streams_open", "Streams that are open", registry=registry)
        self.cut = Counter("graphtide_streams_cut", "Streams cut as their reader was too slow", registry=registry)
        self.store_up = Gauge("graphtide_store_up", "Whether the store could be read last time", registry=registry)

    def exposition(self) -> bytes:
        """Return all meters in Prometheus' text format."""
        return generate_latest(self.registry)
