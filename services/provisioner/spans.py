"""Spans of the provisioner: one for each stored desired version, and one for each call of a saga.

Rule: the context of a call's span is chosen before the commit of the intent, and the commit stores the context beside
the saga. The next try of the step links to the context, also in a process that took over after a kill.
`services.core.saga.open_calls` has the contexts that stay.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.topics import DESIRED
from services.adapters.process import tracing
from services.adapters.process.tracing import Attribute, Span, SpanKind
from services.adapters.registry.types import Arrival
from services.core.saga.calls import Absent, Answer, Call, Done, answer_word
from services.core.saga.open_calls import OpenCalls, place_of


@dataclass(frozen=True, slots=True)
class CallTrace:
    """The contexts around a call.

    Attributes:
        parent: The `traceparent` of the desired version.
        own: The `traceparent` of the call.
        former: The `traceparent` of the try before; None for the first try.
        place: Step and generation, as `open_calls` names a call.
    """

    parent: str
    own: str
    former: str | None
    place: str


def record_arrivals(arrivals: Sequence[Arrival], begun_us: int) -> None:
    """Exports a span for each desired version of a batch that the registry has now.

    Args:
        arrivals: The batch.
        begun_us: Start of the batch, microseconds UTC.
    """
    for arrival in arrivals:
        desired = arrival.desired
        attributes: dict[str, Attribute] = {"lifecycle.key": desired.key, "lifecycle.version": desired.version}
        tracing.record(f"store {DESIRED.name}", SpanKind.CONSUMER, arrival.trace, begun_us, attributes)


def call_trace(parent: str | None, open_calls: OpenCalls, call: Call) -> CallTrace | None:
    """Returns the contexts of a call; None without a sampled trace.

    Args:
        parent: The `traceparent` of the desired version; None without a trace.
        open_calls: The contexts of the saga's open calls.
        call: The prepared call.
    """
    own = tracing.child(parent)
    if own is None or parent is None:
        return None
    place = place_of(call.step, call.generation)
    return CallTrace(parent, own, open_calls.get(place), place)


@contextmanager
def call_span(trace: CallTrace | None, call: Call) -> Iterator[Span | None]:
    """Makes a call within its span; requests to the operator's systems carry the span's context."""
    if trace is None:
        yield None
        return
    links = () if trace.former is None else (trace.former,)
    with tracing.working(f"{call.verb} {call.step}", SpanKind.CLIENT, trace.parent, own=trace.own, links=links) as span:
        yield span


def record_answer(span: Span | None, call: Call, answer: Answer) -> None:
    """Adds call and answer to the span.

    Args:
        span: The span of the call; None without one.
        call: The call.
        answer: The answer.
    """
    if span is None:
        return
    span.attributes |= {
        "lifecycle.key": call.key,
        "lifecycle.step": call.step,
        "lifecycle.generation": call.generation,
        "lifecycle.epoch": call.epoch,
        "lifecycle.verb": call.verb.value,
        "lifecycle.repeats": call.repeats,
        "lifecycle.answer": answer_word(answer),
    }
    if not isinstance(answer, Done | Absent):
        span.fault = answer.reason
