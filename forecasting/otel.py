"""Spans by OpenTelemetry, sent as OTLP over HTTP. Needs the extra `otel`; `forecasting.tracing` imports it."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from forecasting.tracing import Span, Value
from infra.settings import TracingSettings

_PARENT = "traceparent"


def otlp_exporter(settings: TracingSettings) -> SpanExporter:
    """Return what sends spans to the receiver; further headers come from OTEL_EXPORTER_OTLP_HEADERS."""
    return OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.timeout_s)


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)
        if name == "http.response.status_code" and isinstance(value, int) and value >= 500:
            self._span.set_status(trace.StatusCode.ERROR)

    def name(self, name: str) -> None:
        self._span.update_name(name)


class OtelTracing:
    """See `forecasting.tracing.Tracing`. Spans are sent by a thread; what it cannot send in time is dropped.

    Args:
        exporter: where spans go.
        settings: name of the service, and the share of requests that are traced.
        process: which of the processes this is.
    """

    def __init__(self, exporter: SpanExporter, settings: TracingSettings, process: str) -> None:
        resource = Resource.create({SERVICE_NAME: settings.service_name, "graphtide.process": process})
        sampler = ParentBased(TraceIdRatioBased(settings.sample_share))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("graphtide")
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what waits, and end."""
        self._provider.shutdown()

    def span(self, name: str, values: Mapping[str, Value] | None = None) -> AbstractContextManager[Span]:
        """Return a context that is a span."""
        return self._entered(name, trace.SpanKind.INTERNAL, dict(values or {}), None)

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Return a context that is the span of a request."""
        parent = {key: headers[key] for key in (_PARENT, "tracestate") if key in headers}
        # An empty context: the event loop's own must not become the parent.
        return self._entered(name, trace.SpanKind.SERVER, {}, self._propagator.extract(parent, Context()))

    @contextmanager
    def _entered(
        self, name: str, kind: trace.SpanKind, values: dict[str, Value], parent: Context | None
    ) -> Iterator[Span]:
        # The library would write down messages and stacks of errors, which may quote what a caller sent.
        with self._tracer.start_as_current_span(
            name, parent, kind, values, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Span(span)
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(trace.StatusCode.ERROR)
                raise
