"""Traces: what a request and a job do, as spans that a receiver of OTLP gets; and nothing where none is named."""

import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forecasting.api.server import serve
from forecasting.job_worker import work
from forecasting.otel import OtelTracing
from forecasting.tracing import NO_TRACING, open_tracing, spans
from infra.errors import UsageError
from infra.settings import TracingSettings
from tests.integration.serving import save_model, served, service_settings
from tests.integration.test_long_forecasts import JOBS, done

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """A receiver of OTLP over HTTP; `spans` holds name, trace, id, parent and values of what came."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.processes: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            about = values_of(resource.resource)
            self.processes.add(f"{about['service.name']}/{about['graphtide.process']}")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        {
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "is_error": span.status.code == 2,
                            **values_of(span),
                        }
                    )

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"] == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def values_of(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_request_is_a_tree_of_spans_within_the_callers_trace(
    toy_store: str, tmp_path: Path, receiver: Receiver, redis_url: str
) -> None:
    save_model(toy_store, "toy", tmp_path / "models")
    settings = service_settings(
        toy_store,
        tmp_path,
        tracing={"endpoint": receiver.endpoint, "service_name": "town"},
        cache={"redis_url": redis_url, "timeout_s": 5},
        jobs=JOBS,
    )
    url, headers = "/v1/graphs/toy/forecast?horizon=9&metrics=events", {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(settings, "traces", stop), daemon=True)
    with served(settings) as client:
        first = client.get(url, headers=headers)
        again = client.get(url)
        client.get("/v1/graphs/toy/snapshots?limit=3", headers=headers)
        client.get("/v1/graphs/toi", headers={"traceparent": "no trace", "Authorization": "Bearer gt_secret"})
        worker.start()
        job = done(client, {"horizon": 250, "metrics": ["events"]}).rpartition("/")[2]
    stop.set()
    worker.join(60)

    assert receiver.processes == {"town/serve", "town/jobs"}
    one, two = receiver.named("GET /v1/graphs/{graph}/forecast")
    assert (one["trace"], one["parent"]) == (TRACE, PARENT)
    assert one["graphtide.request_id"] == first.headers["x-request-id"]
    assert (one["http.request.method"], one["http.response.status_code"]) == ("GET", 200)
    assert two["graphtide.request_id"] == again.headers["x-request-id"]
    assert (two["trace"] != TRACE, two["parent"]) == (True, "")
    missed, hit = receiver.named("answer")
    assert (missed["parent"], missed["graphtide.cache"]) == (one["id"], "miss")
    assert (hit["parent"], hit["graphtide.cache"]) == (two["id"], "hit")
    (rollout,) = receiver.named("rollout")
    assert (rollout["trace"], rollout["parent"]) == (TRACE, missed["id"])
    (state,) = receiver.named("state")
    assert (state["parent"], state["graphtide.graph"]) == (one["id"], "toy")
    looked = receiver.named("shared cache")
    assert missed["id"] in {span["parent"] for span in looked}
    (page,) = receiver.named("GET /v1/graphs/{graph}/snapshots")
    (read,) = receiver.named("store read")
    assert (read["parent"], read["trace"]) == (page["id"], TRACE)
    (unknown,) = receiver.named("GET /v1/graphs/{graph}")
    assert (unknown["http.response.status_code"], unknown["is_error"], unknown["parent"]) == (404, False, "")
    (whole,) = receiver.named("job")
    assert (whole["graphtide.job"], whole["graphtide.graph"]) == (job, "toy")
    assert [span["parent"] for span in receiver.named("chunk")] == [whole["id"]] * 4, "three, and the look for a fourth"
    assert "gt_secret" not in str(receiver.spans)


def test_a_failure_names_its_kind_and_quotes_nothing() -> None:
    exporter = InMemorySpanExporter()
    tracing = OtelTracing(exporter, TracingSettings(), "test")
    with pytest.raises(ValueError, match="a secret"), tracing.span("outer"), tracing.span("inner", {"a": 1}):
        raise ValueError("a secret")
    with tracing.request("GET", {}) as span:
        span.set("http.response.status_code", 503)
    tracing.close()
    finished = exporter.get_finished_spans()
    inner, outer, _ = finished
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    for ended in finished:
        assert not ended.status.is_ok
        assert ended.events == ()
        assert "a secret" not in ended.to_json()
    assert inner.attributes == {"a": 1, "error.type": "ValueError"}


def test_the_share_that_is_traced_is_a_setting_and_a_caller_decides() -> None:
    exporter = InMemorySpanExporter()
    tracing = OtelTracing(exporter, TracingSettings(sample_share=0), "test")
    with tracing.request("none", {}):
        pass
    with tracing.request("asked for", {"traceparent": f"00-{TRACE}-{PARENT}-01"}):
        pass
    tracing.close()
    assert [span.name for span in exporter.get_finished_spans()] == ["asked for"]


def test_a_receiver_that_is_away_costs_no_request(toy_store: str, tmp_path: Path) -> None:
    save_model(toy_store, "toy", tmp_path / "models")
    tracing = {"endpoint": "http://127.0.0.1:1/v1/traces", "timeout_s": 0.5}
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    try:
        with served(service_settings(toy_store, tmp_path, tracing=tracing)) as client:
            assert client.get("/v1/graphs/toy/forecast").status_code == 200
    finally:
        logging.getLogger("opentelemetry").setLevel(logging.NOTSET)


def test_without_an_endpoint_nothing_is_made() -> None:
    with open_tracing(TracingSettings(), "test") as tracing:
        assert tracing is NO_TRACING
    with NO_TRACING.span("a") as one, NO_TRACING.request("b", {}) as two:
        one.set("a", 1)
        two.name("c")
    assert one is two
    assert list(spans(NO_TRACING, "a", range(3))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"tracing": {"endpoint": "localhost:4318"}}, "[tracing] endpoint"),
        ({"cache": {"redis_url": "localhost:6379"}}, "[cache] redis_url"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_is_served(
    toy_store: str, tmp_path: Path, sections: dict[str, Any], place: str
) -> None:
    with pytest.raises(UsageError) as refused:
        serve(service_settings(toy_store, tmp_path, **sections), log_level=30, on_ready=lambda _: None)
    assert refused.value.place == place


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "forecasting.otel", None)
    with (
        pytest.raises(UsageError, match="not installed") as refused,
        open_tracing(TracingSettings(endpoint="http://h:4318/v1/traces"), "test"),
    ):
        pass
    assert "graphtide[otel]" in str(refused.value.fix)
