"""Telemetry of the ingress: one call for each decision gives the metric and, sampled, the log line.

Rule: no body, no secret, no header and no identifier of an unproved request is logged.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.process.tracing import Attribute, Roots
from services.ingress.endpoints import CredentialsByEndpoint, HintCredentialsByEndpoint
from services.ingress.http.answers import HINTS, OPERATIONS, TABLE, Answer
from services.ingress.http.request import Request
from services.ingress.write_result import OnResult, WriteResult

_EVERY_S: Final = 1.0
"""At most one line a second for each reason: a flood of forgeries must not become a flood of logs."""

_GOOD: Final = 300
_SPAN: Final = "POST /v1/genesys/lifecycle/{endpoint}"
"""Name of the span of a delivery; every path of the webhook has this one."""


@dataclass(slots=True)
class _Sample:
    logged_s: float = -_EVERY_S
    count: int = 0


class Telemetry:
    """Counts and logs the decisions of a process. Use from the event loop: the fast metrics allow a single thread."""

    def __init__(
        self,
        log: Logger,
        credentials: CredentialsByEndpoint = dict,
        roots: Roots | None = None,
        hints: HintCredentialsByEndpoint = dict,
    ) -> None:
        """Starts with nothing logged.

        Args:
            log: The service's logger.
            credentials: The credentials in force. Only their endpoints are named in logs; any further name comes from a
                stranger's URL.
            roots: Begins the traces; None while traces are off.
            hints: The credentials of hints in force, for the same use.
        """
        self._log = log
        self._hints = hints
        self._roots = roots
        # Asked once: a call that logs nothing would still build its fields for every delivery.
        self._logs_each = log.is_enabled_for(logging.DEBUG)
        self._credentials = credentials
        self._samples: dict[str, _Sample] = {}
        # Too many pairs of status and reason for the table of metrics, and these few alone are ever given.
        for answer in TABLE:
            metrics.INGRESS_ANSWERS.show(answer.label, answer.reason)
        for answer in HINTS:
            metrics.INGRESS_HINTS.labels(answer.label, answer.reason)

    def answered(self, request: Request, now_s: float) -> None:
        """Counts an answered request, and logs a refusal; answers of the operations app are not counted.

        Args:
            request: The answered request.
            now_s: The loop's clock, seconds.
        """
        answer = request.given
        if answer is None or answer.reason == OPERATIONS:
            return
        if request.hint_endpoint is not None:
            self._hint_answered(request, answer)
            return
        metrics.INGRESS_ANSWERS.inc(answer.label, answer.reason)
        metrics.INGRESS_ANSWER_S.observe(now_s - request.begun_s)
        if request.trace is not None and self._roots is not None and self._roots.is_sampled(request.trace):
            self._roots.end(
                request.trace, _SPAN, now_s - request.begun_s, request.head.traceparent, _attributes(request, answer)
            )
        if answer.status >= _GOOD:
            endpoint = request.endpoint if request.endpoint in self._credentials() else None
            self._sampled("refused", answer.reason, status=answer.status, endpoint=endpoint, **_named(request))
        elif self._logs_each:
            self._log.debug(
                "answered", status=answer.status, reason=answer.reason, endpoint=request.endpoint, **_named(request)
            )

    def _hint_answered(self, request: Request, answer: Answer) -> None:
        """Counts an answered hint, and logs a refusal; a hint is no delivery, and counts for no objective of those."""
        metrics.INGRESS_HINTS.labels(answer.label, answer.reason).inc()
        if answer.status >= _GOOD:
            endpoint = request.hint_endpoint if request.hint_endpoint in self._hints() else None
            self._sampled("hint refused", answer.reason, status=answer.status, endpoint=endpoint, **_named(request))
        elif self._logs_each:
            endpoint = request.hint_endpoint
            self._log.debug("hint answered", reason=answer.reason, endpoint=endpoint, **_named(request))

    def unwritten(self, reason: str) -> None:
        """Logs a record that was not written, or may not have been.

        Args:
            reason: librdkafka's name of the error, or `UNSEEN` or `NOT_AS_TABLE`.
        """
        self._sampled("unwritten", reason)

    def recheck(self, reason: str, outcome: str) -> None:
        """Counts a re-check that was due.

        Args:
            reason: The row of the time rule that refused the delivery.
            outcome: `asked`, `asked_before` (within five minutes), `no_room` or `unwritten`.
        """
        metrics.INGRESS_RECHECKS.labels(reason, outcome).inc()

    def proved(self, endpoint: str, request: Request, *, previous: bool) -> None:
        """Begins the trace of a proved delivery, while traces are on, and counts an old secret.

        Args:
            endpoint: The endpoint of the delivery.
            request: The request, with the digest of its body.
            previous: True if the sender signs with the previous secret, and does not use the current secret yet.
        """
        if previous:
            metrics.INGRESS_PREVIOUS_SECRET.inc(endpoint)
        if self._roots is not None:
            request.trace = self._roots.begin(request.digest, request.received_us)

    def hint_proved(self, endpoint: str, *, previous: bool) -> None:
        """Counts an old secret of a proved hint."""
        if previous:
            metrics.INGRESS_PREVIOUS_SECRET.inc(endpoint)

    def dead_letter(self, reason: str) -> None:
        """Counts a delivery whose dead letter is durable."""
        metrics.INGRESS_DEAD_LETTERS.labels(reason).inc()

    def counting_letter(self, reason: str, on_result: OnResult) -> OnResult:
        """Returns `on_result`, which then also counts the dead letter: once, as soon as the letter is durable.

        Args:
            reason: The reason of the dead letter.
            on_result: Called with each result.
        """
        counted = False

        def on_letter(result: WriteResult) -> None:
            nonlocal counted
            if not counted and result in {WriteResult.WRITTEN, WriteResult.SPOOLED}:
                counted = True
                self.dead_letter(reason)
            on_result(result)

        return on_letter

    def odd_marks(self) -> None:
        """Counts an accepted delivery with a retry mark that is not a count."""
        metrics.INGRESS_ODD_MARKS.inc()

    def spool(self, event: str, **fields: object) -> None:
        """Logs an event of a whole spool: `spool found`, `spool left`, `spool refused` or `spool aside`."""
        self._log.warning(event, **fields)

    def spool_closed(self, reason: str) -> None:
        """Counts and logs a spool that takes no more records.

        Args:
            reason: `age`, `size`, `high_water`, `gone`, `open`, or the adapter's word for the error of the disk.
        """
        metrics.INGRESS_SPOOL_CLOSED.labels(reason).inc()
        self._log.error("spool closed", reason=reason)

    def drained(self, result: str) -> None:
        """Counts a spooled record: `written`, `expired` (to the dead letters), or `failed` and still in the spool."""
        metrics.INGRESS_SPOOL_DRAINED.labels(result).inc()

    def breaker(self, state: str) -> None:
        """Logs that the breaker before Kafka is `open` or `closed` from now on."""
        self._log.warning("breaker", state=state)

    def broken(self) -> None:
        """Logs a fault of our own with its traceback; call from the `except` block."""
        self._log.exception("broken")

    def _sampled(self, event: str, reason: str, **fields: object) -> None:
        """Logs at most one line a second for each event and reason, with the count since the last line."""
        sample = self._samples.setdefault(f"{event}/{reason}", _Sample())
        sample.count += 1
        now_s = time.monotonic()
        if now_s - sample.logged_s >= _EVERY_S:
            self._log.warning(event, reason=reason, count=sample.count, **fields)
            sample.logged_s, sample.count = now_s, 0


def _named(request: Request) -> dict[str, object]:
    """Returns the key and the trace of a proved request; empty for an unproved one."""
    named: dict[str, object] = {} if request.key is None else {"key": request.key}
    return named if request.trace is None else {**named, "trace_id": request.trace[3:35].decode("ascii")}


def _attributes(request: Request, answer: Answer) -> dict[str, Attribute]:
    """Returns the details of a delivery's span."""
    return {
        "http.request.method": "POST",
        "http.response.status_code": answer.status,
        "lifecycle.answer": answer.reason,
        "lifecycle.endpoint": request.endpoint or "",
        "lifecycle.key": request.key or "",
    }
