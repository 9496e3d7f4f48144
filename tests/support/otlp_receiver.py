"""An OTLP receiver: an HTTP server that keeps every span it is sent, in OpenTelemetry's own protobuf."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as the receiver reads it.

    Attributes:
        service: `service.name` of the sender.
        name: Name of the span.
        trace: Trace id, hex.
        span: Span id, hex.
        parent: Span id of the parent, hex; empty for a first span.
        links: Trace id and span id of each link.
        attributes: Attributes that are text, numbers or booleans.
        fault: Text of the status, where the span failed.
        took_ns: End minus start.
        resource: Attributes of the sender.
    """

    service: str
    name: str
    trace: str
    span: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    fault: str
    took_ns: int
    resource: dict[str, Any]


@dataclass
class OtlpReceiver:
    """What was received until now.

    Attributes:
        url: Base URL, as OTEL_EXPORTER_OTLP_ENDPOINT.
        headers: Headers of every request, names in small letters.
    """

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    _spans: list[ReceivedSpan] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spans(self, key: str | None = None) -> list[ReceivedSpan]:
        """Every span, or those of the traces that a key's spans belong to."""
        with self._lock:
            found = list(self._spans)
        if key is None:
            return found
        traces = {span.trace for span in found if span.attributes.get("lifecycle.key") == key}
        return [span for span in found if span.trace in traces]

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of one request."""
        for resource in request.resource_spans:
            sender = _values(resource.resource.attributes)
            read = [_read(sender, span) for scope in resource.scope_spans for span in scope.spans]
            with self._lock:
                self._spans += read


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver on a free port."""
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.headers.append({name.lower(): text for name, text in self.headers.items()})
            receiver.take(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def _read(sender: dict[str, Any], span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        sender["service.name"],
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _values(span.attributes),
        span.status.message,
        span.end_time_unix_nano - span.start_time_unix_nano,
        sender,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
