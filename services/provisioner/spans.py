"""Spans of the provisioner: one for each stored desired version, and one for each call of a saga.

Rule: the context of a call's span is chosen before the commit of the intent, and the commit stores the context beside
the saga. The next try of the step links to the context, also in a process that took over after a kill. A step that is
done leaves no context.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.topics import DESIRED
from services.adapters.process import tracing
from services.adapters.process.tracing import Attribute, Span, SpanKind
from services.adapters.registry.types import Arrival, Claim
from services.core.saga.calls import Absent, Answer, Call, Done, Verb, answer_word


@dataclass(frozen=True, slots=True)
class CallTrace:
    """The contexts around a call.

    Attributes:
        parent: The `traceparent` of the desired version.
        own: The `traceparent` of the call.
        former: The `traceparent` of the try before; None for the first try.
        place: Step and generation, as `open_calls` names a call.
        open_calls: The saga's calls that are not done, by step.
    """

    parent: str
    own: str
    former: str | None
    place: str
    open_calls: dict[str, str]


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


def call_trace(claim: Claim, call: object) -> CallTrace | None:
    """Returns the contexts of a call, and notes the call as open; None without a call or a sampled trace.

    Args:
        claim: The saga; its open calls are stored by the next commit.
        call: The prepared call, or an answer known without a call.
    """
    own = tracing.child(claim.trace)
    if own is None or claim.trace is None or not isinstance(call, Call):
        return None
    place = f"{call.step} g{call.generation}"
    former = claim.open_calls.get(place)
    claim.open_calls[place] = own
    return CallTrace(claim.trace, own, former, place, claim.open_calls)


@contextmanager
def call_span(trace: CallTrace | None, call: Call) -> Iterator[Span | None]:
    """Makes a call within its span; requests to the operator's systems carry the span's context."""
    if trace is None:
        yield None
        return
    links = () if trace.former is None else (trace.former,)
    with tracing.working(f"{call.verb} {call.step}", SpanKind.CLIENT, trace.parent, own=trace.own, links=links) as span:
        yield span


def record_answer(span: Span | None, trace: CallTrace | None, call: Call, answer: Answer) -> None:
    """Adds call and answer to the span; a call that is done is no longer open.

    Args:
        span: The span of the call; None without one.
        trace: The contexts around the call; None without a span.
        call: The call.
        answer: The answer.
    """
    if span is None or trace is None:
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
    elif call.verb is not Verb.READ:  # a look-up settles what was, and the step may be called again
        trace.open_calls.pop(trace.place, None)
