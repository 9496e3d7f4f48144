"""A signed POST becomes a record, or is refused and changes nothing.

Rule: the order is fixed: caps, header shape, secret by endpoint, MAC over the raw bytes, parse, time, binding, durable
write, answer (docs/specification.md, section 2). Nothing is parsed or written before the signature is verified, and
nothing authentic is filtered.
"""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Final

from schemas import webhook
from schemas.dead_letter import DeadLetterReason
from schemas.topics import DEAD_LETTERS, RECEIVED, named
from schemas.values import Key
from schemas.webhook import Delivery, Malformed, Probe, UnknownEvent
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
    """The answer to a request while the record is being written."""

    __slots__ = ("_answer", "_recent", "_request")

    def __init__(self, recent: ExpiringSet, request: Request, answer: Answer) -> None:
        self._recent = recent
        self._request = request
        self._answer = answer

    def on_result(self, result: WriteResult) -> None:
        """Answers the request by the result of its record.

        A second call, with a late report of a durable record, changes no answer. The call only adds the digest: the
        sender's retry is then recognised as a duplicate.
        """
        request, answer = self._request, self._answer
        if result is WriteResult.WRITTEN:
            self._recent.add(request.digest, request.received_us)
            request.answer(answer)
        elif result is WriteResult.SPOOLED:
            self._recent.add(request.digest, request.received_us)
            # A refusal (400) stays a refusal when its dead letter is spooled.
            request.answer(answers.SPOOLED if answer.status == OK else answer)
        else:
            request.answer(_NOT_NOW[result])


class Receiver:
    """Answers requests to the webhook's paths. Use one receiver per process."""

    def __init__(
        self,
        credentials: CredentialsByEndpoint,
        writer: Writer,
        telemetry: Telemetry,
        *,
        topic_prefix: str,
        now_us: Callable[[], int],
    ) -> None:
        self._credentials, self._writer = credentials, writer
        self._telemetry, self._now_us = telemetry, now_us
        self._received = named(RECEIVED, topic_prefix)
        self._dead_letters = named(DEAD_LETTERS, topic_prefix)
        # Digests of bodies written to each topic, and keys of re-checks.
        self._recent_received = ExpiringSet(WRITTEN_MAX, WRITTEN_US)
        self._recent_dead_letters = ExpiringSet(WRITTEN_MAX, WRITTEN_US)
        self._recent_rechecks = ExpiringSet(RECHECK_MAX, RECHECK_US)

    def on_headers(self, request: Request, by_name: Mapping[bytes, bytes]) -> None:
        """Sets `head` of a request to an endpoint's path, or `refusal`.

        Args:
            request: A request with a complete head.
            by_name: The fields of the request by name.
        """
        # Decided at the head, so that a body that cannot be written now is dropped and not held.
        if self._writer.full:
            request.refusal = answers.SATURATED
        else:
            judged = headers.read(request, by_name)
            if isinstance(judged, DeliveryHeaders):
                request.head = judged
            else:
                request.refusal = judged

    def accept(self, endpoint: str, request: Request) -> None:
        """Answers a complete request, at once or when its record is durable.

        Args:
            endpoint: The endpoint that the request names.
            request: A complete request that `on_headers` did not refuse.
        """
        raw = request.body
        request.received_us = now_us = self._now_us()
        credentials = self._credentials().get(endpoint)
        # Called for an unknown endpoint too, so that the time of the answer does not betray which endpoints exist.
        proof = verify(None if credentials is None else credentials.secrets, request.head.claim, raw, now_us)
        if credentials is None or proof is NONE:
            request.answer(answers.FORGED if credentials else answers.NO_ENDPOINT)
            return
        request.digest = sha256(raw).digest()
        self._telemetry.proved(endpoint, request, previous=proof is PREVIOUS)
        parsed: Delivery | UnknownEvent
        try:
            parsed, recent = webhook.parse(raw), self._recent_received
        except UnknownEvent as unknown:  # a kind of Malformed, so this clause comes first
            # Bound and timed like a delivery before it is a dead letter (docs/decisions/0009).
            parsed, recent = unknown, self._recent_dead_letters
        except Malformed as fault:
            self._dead_letter(request, None, fault, answers.malformed(fault.field, fault.rule))
            return
        known, request.key = recent.knows(request.digest, now_us), parsed.key
        refusal = self._refusal(credentials, request, parsed, known=known)
        if refusal is not None:
            request.answer(refusal)
        elif isinstance(parsed, Probe):
            request.answer(answers.PROVED)
        elif isinstance(parsed, UnknownEvent):
            self._dead_letter(request, parsed.key, parsed, answers.DEAD_LETTERED)
        else:
            self._write(request, parsed, known=known)

    def _refusal(
        self, credentials: EndpointCredentials, request: Request, parsed: Delivery | UnknownEvent, *, known: bool
    ) -> Answer | None:
        """Returns the refusal of an authentic delivery for time or binding, or None; requests a re-check where due."""
        bound = parsed.key is None or credentials.binding.covers(parsed.key)
        verdict = judge(
            now_us=request.received_us,
            header_us=request.head.timestamp_us,
            # An unknown event may have no readable time of its own. Its mark and its digest then prove nothing about
            # its age, so only a fresh header lets it pass.
            signed_us=request.received_us if parsed.at_us is None else parsed.at_us,
            marked=parsed.marked and parsed.at_us is not None,
            known=known and parsed.at_us is not None,
        )
        if verdict.accepted:
            return None if bound else answers.UNBOUND
        # An endpoint must not make the reconciler read keys that it may not speak for. A probe changes nothing at all.
        if verdict.recheck and bound and parsed.key is not None and not isinstance(parsed, Probe):
            self._request_recheck(parsed.key, verdict.row, request.received_us)
        return _UNTIMELY[verdict.row]

    def _write(self, request: Request, parsed: Delivery, *, known: bool) -> None:
        if parsed.odd_marks:
            self._telemetry.odd_marks()
        # Known bytes are written again all the same: every authentic delivery is audited, and the ledger decides.
        answer = answers.DUPLICATE_HANDLED if known else answers.QUEUED
        pending = _PendingAnswer(self._recent_received, request, answer)
        self._writer.write(
            self._received, records.delivery(request, parsed.key), request.received_us, pending.on_result
        )

    def _dead_letter(self, request: Request, key: Key | None, fault: Malformed, answer: Answer) -> None:
        """Writes the dead letter, once for equal bytes, and answers when the letter is durable."""
        if self._recent_dead_letters.knows(request.digest, request.received_us):
            request.answer(answer)
            return
        reason = DeadLetterReason.UNKNOWN_EVENT if isinstance(fault, UnknownEvent) else DeadLetterReason.MALFORMED
        letter = records.dead_letter(request, key, reason, fault)
        pending = _PendingAnswer(self._recent_dead_letters, request, answer)
        on_result = self._telemetry.counting_letter(reason, pending.on_result)
        self._writer.write(self._dead_letters, letter, request.received_us, on_result)

    def _request_recheck(self, key: Key, row: TimeRule, now_us: int) -> None:
        """Writes a request for a re-check, at most once per key in five minutes; the refusal does not wait."""
        if self._recent_rechecks.knows(key, now_us):
            self._telemetry.recheck(row, "asked_before")
            return
        # A full set would forget a key, and ask about that key again within the five minutes.
        if self._recent_rechecks.full:
            self._telemetry.recheck(row, "no_room")
            return
        # Added before the report, so that a delivery that comes meanwhile asks no second time.
        self._recent_rechecks.add(key, now_us)
        recheck = records.recheck(key, row, now_us)
        self._writer.send_best_effort(self._received, recheck, partial(self._on_recheck_written, key, row))

    def _on_recheck_written(self, key: Key, row: TimeRule, written: bool) -> None:  # noqa: FBT001 - a report's one word
        self._telemetry.recheck(row, "asked" if written else "unwritten")
        if not written:
            self._recent_rechecks.discard(key)
