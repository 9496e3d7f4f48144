"""One request: a signed POST becomes a record, or is refused and changes nothing.

Rule: the order is fixed: caps, header shape, secret by endpoint, MAC over the raw bytes, parse, time, binding, durable
write, answer. Nothing is parsed or written for a request that has not proved itself; nothing authentic is filtered.
"""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Final

from schemas import webhook
from schemas.topics import DEAD_LETTERS, RECEIVED, named
from schemas.values import Key
from schemas.webhook import Malformed, UnknownEvent
from services.core.delivery.signature import NONE, PREVIOUS, verify
from services.core.delivery.timestamp_rule import TimeRule, judge
from services.ingress import records
from services.ingress.endpoints import CredentialsByEndpoint, EndpointCredentials
from services.ingress.http import answers, headers
from services.ingress.http.answers import OK, Answer
from services.ingress.http.request import DeliveryHeaders, Request
from services.ingress.recent import RECHECK_MAX, RECHECK_US, WRITTEN_MAX, WRITTEN_US, ExpiringSet
from services.ingress.telemetry import Telemetry
from services.ingress.write_result import WriteResult
from services.ingress.writer import Writer

_UNTIMELY: Final = {TimeRule.FUTURE: answers.FUTURE, TimeRule.STALE: answers.STALE, TimeRule.UNMARKED: answers.UNMARKED}
_NOT_NOW: Final = {WriteResult.UNWRITTEN: answers.KAFKA, WriteResult.REFUSED: answers.SATURATED}


class _PendingAnswer:
    """An answer that waits for its record."""

    __slots__ = ("_answer", "_memory", "_request")

    def __init__(self, memory: ExpiringSet, request: Request, answer: Answer) -> None:
        self._memory = memory
        self._request = request
        self._answer = answer

    def on_result(self, fate: WriteResult) -> None:
        """What became of the record."""
        request, answer = self._request, self._answer
        if fate is WriteResult.WRITTEN:
            self._memory.add(request.digest, request.received_us)
            request.answer(answer)
        elif fate is WriteResult.SPOOLED:
            self._memory.add(request.digest, request.received_us)
            request.answer(answers.SPOOLED if answer.status == OK else answer)
        else:
            request.answer(_NOT_NOW[fate])


class Receiver:
    """Answers the POST paths. One per process."""

    def __init__(
        self,
        gates: CredentialsByEndpoint,
        writer: Writer,
        telling: Telemetry,
        *,
        topic_prefix: str,
        now_us: Callable[[], int],
    ) -> None:
        self._gates = gates
        self._writer = writer
        self._telling = telling
        self._now_us = now_us
        self._received = named(RECEIVED, topic_prefix)
        self._dead_letters = named(DEAD_LETTERS, topic_prefix)
        self._written = ExpiringSet(WRITTEN_MAX, WRITTEN_US)
        self._buried = ExpiringSet(WRITTEN_MAX, WRITTEN_US)
        self._asked = ExpiringSet(RECHECK_MAX, RECHECK_US)

    def on_headers(self, request: Request, found: Mapping[bytes, bytes]) -> None:
        """Judge the head of a request to an endpoint's path: note what it says, or the answer that refuses it.

        Args:
            request: The request.
            found: Its fields by name.
        """
        if self._writer.full:
            request.refusal = answers.SATURATED
        else:
            seen = headers.read(request, found)
            if isinstance(seen, DeliveryHeaders):
                request.head = seen
            else:
                request.refusal = seen

    def take(self, endpoint: str, request: Request) -> None:
        """Answer a whole request, now or when its record is durable.

        Args:
            endpoint: Which it names.
            request: With its head judged.
        """
        raw = request.body
        request.received_us = now_us = self._now_us()
        gate = self._gates().get(endpoint)
        proof = verify(None if gate is None else gate.secrets, request.head.claim, raw, now_us)
        if gate is None or proof is NONE:
            request.answer(answers.FORGED if gate else answers.NO_ENDPOINT)
            return
        if proof is PREVIOUS:
            self._telling.previous_secret(endpoint)
        request.digest = sha256(raw).digest()
        told: webhook.Delivery | UnknownEvent
        try:
            told, memory = webhook.parse(raw), self._written
        except UnknownEvent as unknown:
            told, memory = unknown, self._buried
        except Malformed as fault:
            self._bury(request, None, fault, answers.malformed(fault.field, fault.rule))
            return
        known = memory.knows(request.digest, now_us)
        refusal = self._refusal(gate, request, told, known=known)
        if refusal is not None:
            request.answer(refusal)
        elif isinstance(told, UnknownEvent):
            self._bury(request, told.key, told, answers.PARKED)
        else:
            self._write(request, told, known=known)

    def _refusal(
        self, gate: EndpointCredentials, request: Request, told: webhook.Delivery | UnknownEvent, *, known: bool
    ) -> Answer | None:
        """What speaks against an authentic delivery: its time, or whom it speaks for."""
        bound = told.key is None or gate.binding.covers(told.key)
        verdict = judge(
            now_us=request.received_us,
            header_us=request.head.stated_us,
            # Without a readable time of its own (an unknown event may have none) nothing but a fresh header vouches.
            signed_us=request.received_us if told.at_us is None else told.at_us,
            marked=told.marked and told.at_us is not None,
            known=known and told.at_us is not None,
        )
        if verdict.accepted:
            return None if bound else answers.UNBOUND
        if verdict.recheck and bound and told.key is not None:
            self._ask(told.key, verdict.row, request.received_us)
        return _UNTIMELY[verdict.row]

    def _write(self, request: Request, told: webhook.Delivery, *, known: bool) -> None:
        if told.odd_marks:
            self._telling.odd_marks()
        answer = answers.DUPLICATE_HANDLED if known else answers.QUEUED
        owed = _PendingAnswer(self._written, request, answer)
        self._writer.write(self._received, records.delivery(request, told.key), request.received_us, owed.on_result)

    def _bury(self, request: Request, key: Key | None, fault: Malformed, answer: Answer) -> None:
        """To dead letters, once for equal bytes; answered so only when it is there."""
        if self._buried.knows(request.digest, request.received_us):
            request.answer(answer)
            return
        reason = "unknown_event" if isinstance(fault, UnknownEvent) else "malformed"
        letter = records.dead_letter(request, key, reason, fault)
        owed = _PendingAnswer(self._buried, request, answer)
        self._writer.write(self._dead_letters, letter, request.received_us, owed.on_result)

    def _ask(self, key: Key, row: TimeRule, now_us: int) -> None:
        """Ask for a re-check, at most once per key in five minutes; the refusal does not wait for it."""
        if self._asked.knows(key, now_us):
            self._telling.recheck(row, "asked_before")
            return
        if self._asked.full:
            self._telling.recheck(row, "no_room")
            return
        self._asked.add(key, now_us)
        wish = records.recheck(key, row, now_us)
        self._writer.send_best_effort(self._received, wish, partial(self._heard, key, row))

    def _heard(self, key: Key, row: TimeRule, written: bool) -> None:  # noqa: FBT001 - a report's one word
        self._telling.recheck(row, "asked" if written else "unwritten")
        if not written:
            self._asked.discard(key)
