"""An HTTP request, from the first byte to the answer."""

from collections.abc import Callable
from typing import NamedTuple

from schemas.values import Key
from services.ingress.http.answers import Answer, Field


class DeliveryHeaders(NamedTuple):
    """The header fields of a delivery, parsed.

    Attributes:
        claim: The 32 bytes that the signature header claims.
        timestamp_us: H, the unsigned time of `X-Genesys-Event-Timestamp`, microseconds UTC.
        timestamp: H as the sender wrote the text; ASCII.
        traceparent: A well-formed `traceparent`, or None.
    """

    claim: bytes
    timestamp_us: int
    timestamp: bytes
    traceparent: bytes | None


class Request:
    """An HTTP request, and the findings of the stages passed until now.

    Defaults stand in the class and not in `__init__`: most attributes are written once at most, and a request is made
    for every delivery.

    Attributes:
        begun_s: The loop's time when the first byte was parsed, seconds; set anew when reading resumes after a pause.
        method: As the sender wrote the method.
        target: As the sender wrote the target.
        version: `1.0` or `1.1`; empty until the head is complete.
        fields: Header fields in their order, names in lower case.
        keep_alive: True if the connection may stay open after the answer.
        head_bytes: Upper bound of the head's size: all bytes fed to the parser from the piece in which the head begins
            to the piece in which the head ends.
        awaits_continue: True if the sender holds the body back until the server sends 100 (`Expect: 100-continue`).
        endpoint: The endpoint named by the target; None for any path but a webhook's.
        hint_endpoint: The endpoint for hints named by the target; None for any path but a hint's.
        hint_secret: The secret that the header of a hint claims; set once the head was accepted.
        head: The parsed header fields of a delivery; set once they were accepted.
        refusal: The answer found before the end of the body; the body is then dropped.
        body: The raw body; empty where the body was dropped.
        size_bytes: Bytes of body received, dropped bytes included.
        received_us: Our clock when the receiver took the whole request, microseconds UTC. Stamped once: every stage
            judges by this time.
        digest: SHA-256 of the body; set once the signature was verified.
        key: The key in a proved body; None before the proof, and for a body without a readable key.
        trace: The `traceparent` of our own span; None before the proof, and while traces are off.
        given: The answer; None until the request is answered.
    """

    method = b""
    target = b""
    version = ""
    fields: tuple[Field, ...] | list[Field] = ()
    keep_alive = False
    head_bytes = 0
    awaits_continue = False
    endpoint: str | None = None
    hint_endpoint: str | None = None
    hint_secret = b""
    head: DeliveryHeaders
    refusal: Answer | None = None
    body = b""
    size_bytes = 0
    received_us: int
    digest: bytes
    key: Key | None = None
    trace: bytes | None = None
    given: Answer | None = None

    def __init__(self, begun_s: float, on_answer: Callable[["Request"], None]) -> None:
        """Begins a request.

        Args:
            begun_s: The loop's time when the first byte was parsed, seconds.
            on_answer: Called once, when the request is answered.
        """
        self.begun_s = begun_s
        self._on_answer = on_answer

    def answer(self, answer: Answer) -> None:
        """Answers the request, on the event loop. The first answer counts, later answers are ignored."""
        # A second answer is usual: Kafka's late report comes after the sender was answered 503 or "spooled".
        if self.given is None:
            self.given = answer
            self._on_answer(self)
