"""An audit of EventBridge becomes a request for a re-check, or an event, or is refused and changes nothing.

Rule: the order is fixed, as for deliveries: caps, header shape, secret by endpoint, parse, binding, durable write,
answer. A hint is answered 200 when the re-check is durable, or when nothing is asked. An answer of 429 or 503 makes
EventBridge try again for up to a day, and a 4xx else ends the hint (docs/decisions/0040).

An audit counts as an event at an endpoint with the authority `event`, and there alone (docs/decisions/0043): the
envelope is written untouched, and the ledger decides. Everywhere else the audit is a hint.

Approach: every audit of an integration is written once, also several audits of a key in a row, since the read for the
first may be older than the change of the last. The ledger keeps one open re-check per key, and the reconciler reads a
key at most once in 5 minutes. Memory here is bounded: forgetting an audit costs a record, and no read of Genesys.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from schemas import hint
from schemas.hint import IntegrationAudit
from schemas.keyring import Authority
from schemas.topics import RECEIVED, named
from schemas.webhook import Malformed
from services.core.delivery.audited_events import audited_event
from services.core.delivery.hint_rule import Ignored, judge, prove, read_after_us
from services.core.delivery.signature import NONE, PREVIOUS
from services.ingress import records
from services.ingress.endpoints import HintCredentialsByEndpoint
from services.ingress.http import answers, headers
from services.ingress.http.request import Request
from services.ingress.recent import RECHECK_MAX, RECHECK_US, WRITTEN_MAX, ExpiringSet
from services.ingress.telemetry import Telemetry
from services.ingress.write_result import OnResult, WriteResult
from services.ingress.writer import Writer

_REPEATED_US: Final = 86_400_000_000
"""EventBridge repeats a delivery for up to a day."""

_UNWRITTEN: Final = {WriteResult.UNWRITTEN: answers.KAFKA, WriteResult.REFUSED: answers.SATURATED}


class Hints:
    """Answers requests to the paths of hints. Use one per process, from the event loop."""

    def __init__(
        self,
        credentials: HintCredentialsByEndpoint,
        writer: Writer,
        telemetry: Telemetry,
        *,
        topic_prefix: str,
        now_us: Callable[[], int],
    ) -> None:
        self._credentials, self._writer = credentials, writer
        self._telemetry, self._now_us = telemetry, now_us
        self._received = named(RECEIVED, topic_prefix)
        self._recent_audits = ExpiringSet(WRITTEN_MAX, _REPEATED_US)
        self._recent_keys = ExpiringSet(RECHECK_MAX, RECHECK_US)

    def on_headers(self, request: Request, by_name: Mapping[bytes, bytes]) -> None:
        """Sets `hint_secret` of a request to a hint's path, or `refusal`.

        Args:
            request: A request with a complete head.
            by_name: The fields of the request by name.
        """
        if self._writer.full:
            request.refusal = answers.SATURATED
            return
        judged = headers.read_hint(request, by_name)
        if isinstance(judged, bytes):
            request.hint_secret = judged
        else:
            request.refusal = judged

    def accept(self, endpoint: str, request: Request) -> None:
        """Answers a complete request, at once or when its record is durable.

        Args:
            endpoint: The endpoint that the request names.
            request: A complete request that `on_headers` did not refuse.
        """
        request.received_us = now_us = self._now_us()
        credentials = self._credentials().get(endpoint)
        # Called for an unknown endpoint too, so that the time of the answer does not betray which endpoints exist.
        proof = prove(None if credentials is None else credentials.secrets, request.hint_secret, now_us)
        if credentials is None or proof is NONE:
            request.answer(answers.HINT_FORGED if credentials else answers.HINT_NO_ENDPOINT)
            return
        self._telemetry.hint_proved(endpoint, previous=proof is PREVIOUS)
        try:
            envelope = hint.parse(request.body)
            if not credentials.binding.covers(envelope.org_id, envelope.account):
                request.answer(answers.UNBOUND)
                return
            judged = judge(envelope)
        except Malformed as fault:
            request.answer(answers.malformed(fault.field, fault.rule))
            return
        if isinstance(judged, IntegrationAudit) and credentials.authority is Authority.EVENT:
            judged = judged if audited_event(judged) is not None else Ignored.CHANGE
        if isinstance(judged, Ignored):
            request.answer(answers.IGNORED[judged])
        else:
            self._take(request, judged, credentials.authority)

    def _take(self, request: Request, audit: IntegrationAudit, authority: Authority) -> None:
        """Writes the record of an audit, once for an audit, and answers when the record is durable."""
        request.key, now_us = audit.key, request.received_us
        # A hash, since ids of strangers have any length. With the authority, since a hint taken before is no event.
        request.digest = sha256(f"{authority}/{audit.key}/{audit.audit_id}".encode()).digest()
        if self._recent_audits.knows(request.digest, now_us):
            request.answer(answers.DUPLICATE_HANDLED)
            return
        # A full set would forget a key and take another in its place: the number of keys would have no bound.
        if not self._recent_keys.knows(audit.key, now_us) and self._recent_keys.full:
            request.answer(answers.FLOODED)
            return
        self._recent_keys.add(audit.key, now_us)
        if authority is Authority.EVENT:
            record = records.audited(request, audit)
        else:
            record = records.hinted_recheck(audit, read_after_us(audit.at_us), now_us)
        self._writer.write(self._received, record, now_us, self._answering(request))

    def _answering(self, request: Request) -> OnResult:
        """Returns the callback that answers a request by the result of its record."""

        def on_result(result: WriteResult) -> None:
            if (refusal := _UNWRITTEN.get(result)) is not None:
                request.answer(refusal)
                return
            # Only once durable: a repetition is answered without a further record.
            self._recent_audits.add(request.digest, request.received_us)
            request.answer(answers.QUEUED if result is WriteResult.WRITTEN else answers.SPOOLED)

        return on_result
