"""One request as it came, from its first byte to its answer."""

from collections.abc import Callable
from typing import NamedTuple

from services.ingress.http.answers import Answer, Field


class DeliveryHeaders(NamedTuple):
    """What the head of an acceptable delivery says.

    Attributes:
        claim: The 32 bytes that the signature claims.
        stated_us: H, the unsigned time, microseconds UTC.
        stated: The same as it was written; ASCII.
        trace: A well-formed `traceparent`, or None.
    """

    claim: bytes
    stated_us: int
    stated: bytes
    trace: bytes | None


class Request:
    """What a connection hears, and what is found out about it on the way.

    What is not known yet stands in the class: most of a request is written once, and making it must cost nothing.

    Attributes:
        begun_s: When its first byte came, seconds of the loop's clock.
        method: As it was written.
        target: As it was written.
        version: `1.0` or `1.1`; empty until the head is whole.
        fields: Names in lower case, and values, in their order.
        keeps: Whether its sender wants the connection to stay.
        head_bytes: Its head was no longer than this: so much came from the piece in which it began to its end.
        waits: True if its sender sends the body when it is asked to (`Expect: 100-continue`).
        endpoint: Which endpoint of the webhook's paths it names; None for any other path.
        head: What the head of a delivery says, once it was judged and found well.
        refusal: The answer that was found before the body's end; the body is then dropped.
        body: The raw bytes; empty where it was dropped.
        size_bytes: How many bytes of body came, dropped ones too.
        received_us: Our clock when it had proved itself, microseconds UTC; stamped once, no later stage judges by its
            own.
        digest: SHA-256 of the body of one that proved itself: equal bytes, equal digest.
        given: Its answer, once it has one.
    """

    method = b""
    target = b""
    version = ""
    fields: tuple[Field, ...] | list[Field] = ()
    keeps = False
    head_bytes = 0
    waits = False
    endpoint: str | None = None
    head: DeliveryHeaders
    refusal: Answer | None = None
    body = b""
    size_bytes = 0
    received_us: int
    digest: bytes
    given: Answer | None = None

    def __init__(self, begun_s: float, reply: Callable[["Request"], None]) -> None:
        """Begin one.

        Args:
            begun_s: When its first byte came.
            reply: Told once it has its answer.
        """
        self.begun_s = begun_s
        self._reply = reply

    def answer(self, answer: Answer) -> None:
        """Give it its answer, now or later, on the loop; of several the first counts, the others are late news."""
        if self.given is None:
            self.given = answer
            self._reply(self)
