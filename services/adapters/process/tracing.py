"""Traces: spans of the work on a delivery, for an OTLP receiver, where OpenTelemetry's standard variables ask for them.

Problem: a delivery passes four processes by way of Kafka and of the registry, and any of them may be killed.

Approach: a trace begins where a record first enters `lifecycle.received`: with a delivery in the ingress, with an
observation in the reconciler. There it is also decided if the trace is sampled. The header `traceparent` of the record
names that first span; the ledger repeats the header in every record that the delivery causes, and the
registry keeps the text beside the saga. So a replayed record is equal to the byte, and a worker that takes a saga over
goes on in the trace. Every later span is a child of the first.

While traces are off, no record gets a header of ours and no span is made. OpenTelemetry is imported by
`services.adapters.process.otlp` alone, and only when traces are on.
"""

import secrets
from binascii import hexlify
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from schemas.codec import readable_trace
from services.adapters.process.clock import now_us
from services.adapters.process.settings import TraceSettings

_SAMPLED: Final = frozenset("13579bdf")
"""Last digits of the flags of a sampled `traceparent`."""
_SAMPLE_SPACE: Final = 1 << 64

Attribute = str | int | bool


class SpanKind(StrEnum):
    """The place of a span in an exchange, as OpenTelemetry names the places."""

    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    CLIENT = "client"


@dataclass(slots=True)
class Span:
    """A span.

    Attributes:
        name: Name without a key or a tenant.
        kind: Place in the exchange.
        traceparent: The span's own context.
        parent: Context of the parent; None for the first span of a trace.
        begun_us: Start, microseconds UTC.
        ended_us: End, microseconds UTC; 0 before the end.
        links: Contexts of spans in a cause that is not the parent: the sender's own, and the try before this one.
        attributes: Details; no secret and no value of a configuration.
        fault: The reason of a failure; empty text for a success.
    """

    name: str
    kind: SpanKind
    traceparent: str
    parent: str | None
    begun_us: int
    ended_us: int = 0
    links: tuple[str, ...] = ()
    attributes: dict[str, Attribute] = field(default_factory=dict)
    fault: str = ""


class SpanExporter(Protocol):
    """Takes finished spans, and sends the spans in the background."""

    def export(self, span: Span) -> None:
        """Takes a finished span of a sampled trace."""

    def close(self) -> None:
        """Sends the last spans, within a few seconds."""


class Roots:
    """Begins and ends the first span of each trace."""

    def __init__(self, exporter: SpanExporter, ratio: float, kind: SpanKind) -> None:
        """Prepares the sampler.

        Args:
            exporter: Takes the spans.
            ratio: Part of the traces that are sampled, 0 to 1.
            kind: Place of these spans in the exchange.
        """
        self._exporter, self._kind = exporter, kind
        # Compared as bytes, in every delivery: longer than eight bytes is above all of eight.
        self._bound = b"\xff" * 9 if ratio >= 1 else round(ratio * _SAMPLE_SPACE).to_bytes(8, "big")

    def begin(self, digest: bytes, received_us: int) -> bytes:
        """Returns the `traceparent` of a new span.

        Deliveries of equal bytes share a trace, so the sender's retries are seen beside the first attempt. The signed
        bytes decide about the sampling, never a header of the sender.

        Args:
            digest: SHA-256 of the proved body, or of the id of an observation.
            received_us: Time of receipt, or of the observation's writing, microseconds UTC; distinguishes attempts with
                equal bytes.
        """
        flags = b"01" if digest[8:16] < self._bound else b"00"
        return b"00-%b-%016x-%b" % (hexlify(digest[:16]), received_us, flags)

    def is_sampled(self, traceparent: bytes) -> bool:
        """True if the span of a `traceparent` of `begin` is to be exported."""
        return traceparent.endswith(b"1")

    def end(
        self, traceparent: bytes, name: str, took_s: float, link: bytes | None, attributes: dict[str, Attribute]
    ) -> None:
        """Exports the span of an answered request, or of a record that is written.

        Args:
            traceparent: As `begin` returned.
            name: Name of the span.
            took_s: Seconds since its begin.
            link: The `traceparent` of the sender; None for none.
            attributes: Details of the span.
        """
        ended_us = now_us()
        links = () if link is None else (link.decode("ascii"),)
        begun_us = ended_us - round(took_s * 1_000_000)
        own = traceparent.decode("ascii")
        self._exporter.export(Span(name, self._kind, own, None, begun_us, ended_us, links, attributes))


_current: ContextVar[Span | None] = ContextVar("span", default=None)
_exporter: SpanExporter | None = None


@contextmanager
def exporting(service: str, settings: TraceSettings) -> Iterator[None]:
    """Exports the spans of a service during the context, if the settings ask for traces.

    Raises:
        Unusable: traces are asked for, and the extra `otel` is not installed.
    """
    global _exporter  # noqa: PLW0603 - one exporter a process, as the metrics have one registry
    if not settings.traces_on:
        yield
        return
    from services.adapters.process import otlp  # noqa: PLC0415 - the library is an extra, imported where asked for

    _exporter = exporter = otlp.exporter(settings.otel_service_name or f"lifecycle-{service}")
    try:
        yield
    finally:
        _exporter = None
        exporter.close()


def roots(ratio: float, kind: SpanKind) -> Roots | None:
    """Returns the beginning of traces, for a service in which they begin; None while traces are off."""
    return None if _exporter is None else Roots(_exporter, ratio, kind)


def trace_id() -> str | None:
    """Returns the id of the trace that this task works for, 32 hex digits; None without a trace."""
    span = _current.get()
    return None if span is None else span.traceparent[3:35]


def outgoing() -> str | None:
    """Returns the `traceparent` for a request of this task; None while traces are off."""
    span = _current.get()
    return None if _exporter is None or span is None else span.traceparent


def follow(traceparent: str | None) -> None:
    """Makes a trace that of this task's log lines, until the next call."""
    _current.set(None if traceparent is None else Span("", SpanKind.CONSUMER, traceparent, None, 0))


def child(parent: str | None) -> str | None:
    """Returns the `traceparent` of a new span below a parent; None if the span would not be exported.

    An unreadable parent counts as absent.
    """
    if _exporter is None or (parent := readable_trace(parent)) is None or parent[-1] not in _SAMPLED:
        return None
    return f"{parent[:36]}{secrets.token_hex(8)}{parent[52:]}"


def note(name: str, value: Attribute) -> None:
    """Adds a detail to the span of this task."""
    span = _current.get()
    if span is not None:
        span.attributes[name] = value


def of_record(topic: str, partition: int, offset: int, key: bytes | None) -> dict[str, Attribute]:
    """Returns the details of a Kafka record, named as OpenTelemetry's conventions for messages do."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
        "messaging.kafka.message.key": (key or b"").decode("utf-8", "replace"),
    }


def record(name: str, kind: SpanKind, parent: str | None, begun_us: int, attributes: dict[str, Attribute]) -> None:
    """Exports a span that ends now; nothing while traces are off, or below an unsampled parent.

    Args:
        name: Name of the span, without a key or a tenant.
        kind: Place in the exchange.
        parent: The `traceparent` of the cause; None without a trace.
        begun_us: Start, microseconds UTC.
        attributes: Details of the span.
    """
    own = child(parent)
    if own is not None and _exporter is not None:
        _exporter.export(Span(name, kind, own, parent, begun_us, now_us(), (), attributes))


@contextmanager
def working(
    name: str, kind: SpanKind, parent: str | None, *, own: str | None = None, links: tuple[str, ...] = ()
) -> Iterator[Span | None]:
    """Works within a span; log lines carry the trace's id, also while no span is exported.

    Args:
        name: Name of the span, without a key or a tenant.
        kind: Place in the exchange.
        parent: The `traceparent` of the cause; None without a trace.
        own: As `child` returned before; None for a new span.
        links: Contexts of further causes.

    Yields:
        The span; None without a trace.
    """
    if parent is None:
        yield None
        return
    own = own or child(parent)
    span = Span(name, kind, own or parent, parent, 0 if own is None else now_us(), 0, links)
    token = _current.set(span)
    try:
        yield span
    except BaseException as error:
        span.fault = type(error).__name__
        raise
    finally:
        _current.reset(token)
        if own is not None and _exporter is not None:
            span.ended_us = now_us()
            _exporter.export(span)
