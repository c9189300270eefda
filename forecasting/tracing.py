"""Traces of what a request or a job does, by OpenTelemetry where the settings name a receiver; else nothing at all.

Spans hold names, counts and ids; no header, query, body or message of an error is put into one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Protocol, TypeVar

from infra.errors import UsageError
from infra.settings import TracingSettings

Value = str | int | float | bool
Item = TypeVar("Item")


class Span(Protocol):
    """Something that takes time."""

    def set(self, name: str, value: Value) -> None:
        """Say something of it."""
        ...

    def name(self, name: str) -> None:
        """Give it another name: of a request, the route is known late."""
        ...


class Tracing(Protocol):
    """What makes spans; `NO_TRACING`, or that of `open_tracing`."""

    def span(self, name: str, values: Mapping[str, Value] | None = None) -> AbstractContextManager[Span]:
        """Return a context that is a span within that of its caller, on the same thread or event loop task."""
        ...

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Return a context that is the span of a request, within that of its `traceparent` (W3C Trace Context)."""
        ...


class _Nothing:
    """A span, its context and its maker, none of which does anything."""

    def span(self, name: str, values: Mapping[str, Value] | None = None) -> "AbstractContextManager[Span]":
        return self

    def request(self, name: str, headers: Mapping[str, str]) -> "AbstractContextManager[Span]":
        return self

    def set(self, name: str, value: Value) -> None: ...

    def name(self, name: str) -> None: ...

    def __enter__(self) -> "Span":
        return self

    def __exit__(self, *exc: object) -> None: ...


NO_TRACING: Tracing = _Nothing()


def spans(tracing: Tracing, name: str, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, each made within a span; what is done with them lies outside."""
    iterator = iter(items)
    while True:
        with tracing.span(name):
            found = list(islice(iterator, 1))
        if not found:
            return
        yield found[0]


@contextmanager
def open_tracing(settings: TracingSettings, process: str) -> Iterator[Tracing]:
    """Yield what makes spans; at the end those that wait are sent.

    Args:
        settings: where they go.
        process: which of the processes this is.

    Raises:
        UsageError: see `check`.
    """
    if not settings.endpoint:
        yield NO_TRACING
        return
    check(settings)
    from forecasting.otel import OtelTracing, otlp_exporter  # noqa: PLC0415 - of an extra

    tracing = OtelTracing(otlp_exporter(settings), settings, process)
    try:
        yield tracing
    finally:
        tracing.close()


def check(settings: TracingSettings) -> None:
    """Refuse settings that cannot be followed.

    Raises:
        UsageError: the libraries are not installed, or the receiver's address is none.
    """
    if not settings.endpoint:
        return
    if not settings.endpoint.startswith(("http://", "https://")):
        raise UsageError(
            "not the address of a receiver of OTLP over HTTP",
            place="[tracing] endpoint",
            fix="write http://localhost:4318/v1/traces",
        )
    try:
        import forecasting.otel  # noqa: F401, PLC0415 - of an extra
    except ImportError as error:
        raise UsageError(
            "[tracing] endpoint is set, and the libraries of OpenTelemetry are not installed",
            fix="pip install 'graphtide[otel]', or leave the endpoint empty",
        ) from error
