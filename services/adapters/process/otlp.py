"""Sends finished spans to an OTLP receiver over HTTP, by OpenTelemetry's own exporter.

Rule: only this module imports OpenTelemetry, and only a process with traces imports this module. The exporter reads its
standard variables by itself: endpoint, headers, certificate, time limit, and the sizes of its batches.
"""

import logging
from importlib.metadata import version
from threading import Thread
from typing import Final

from services.adapters.process.errors import Unusable
from services.adapters.process.log_throttle import ThrottleFilter
from services.adapters.process.tracing import Span, SpanExporter, SpanKind

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
    from opentelemetry.trace import SpanKind as OtelKind
except ImportError as missing:
    raise Unusable(
        f"OTEL_TRACES_EXPORTER: traces are asked for, and {missing.name} is not installed; "
        "install genesys-lifecycle[otel], or set OTEL_SDK_DISABLED=true"
    ) from None

_KINDS: Final = {
    SpanKind.SERVER: OtelKind.SERVER,
    SpanKind.PRODUCER: OtelKind.PRODUCER,
    SpanKind.CONSUMER: OtelKind.CONSUMER,
    SpanKind.CLIENT: OtelKind.CLIENT,
}
_PACKAGE: Final = "genesys-lifecycle"
_CLOSE_S: Final = 2.0
"""Time limit of the last spans at the end of a process, seconds."""


def exporter(service_name: str) -> SpanExporter:
    """Returns an exporter for the spans of this process; nothing connects before the first span.

    Args:
        service_name: Value of `service.name`.
    """
    # While the receiver is away, the library logs every batch that it drops.
    library = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    library.addFilter(_without_texts_of_exceptions)
    library.addFilter(ThrottleFilter())
    return _OtlpExporter(service_name, version(_PACKAGE))


def _without_texts_of_exceptions(record: logging.LogRecord) -> bool:
    """Puts the class of each exception in place of its text, which may quote the receiver's URL and a key in it."""
    if isinstance(record.args, tuple):
        record.args = tuple(type(part).__name__ if isinstance(part, Exception) else part for part in record.args)
    return True


class _OtlpExporter:
    def __init__(self, service_name: str, package_version: str) -> None:
        attributes = {"service.name": service_name, "service.version": package_version}
        self._resource = Resource.create(attributes)
        self._scope = InstrumentationScope(_PACKAGE, package_version)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

    def export(self, span: Span) -> None:
        """Puts a finished span into the next batch; a full queue drops the span."""
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=_context(span.traceparent),
                parent=None if span.parent is None else _context(span.parent),
                resource=self._resource,
                attributes=span.attributes,
                links=[Link(_context(link)) for link in span.links],
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR, span.fault) if span.fault else Status(),
                start_time=span.begun_us * 1_000,
                end_time=span.ended_us * 1_000,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Sends the last batch, within two seconds."""
        # The processor's own limit is half a minute, longer than a supervisor waits for the end of a service.
        closing = Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def _context(traceparent: str) -> SpanContext:
    """Returns the context in a well-formed `traceparent`."""
    flags = TraceFlags(int(traceparent[53:55], 16))
    return SpanContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_remote=True, trace_flags=flags)
