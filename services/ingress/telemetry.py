"""Telemetry of the ingress: one call a decision gives the metric and, sampled, the log line.

Rule: no body, no secret, no header and no identifier of a request that did not prove itself is logged.
"""

import time
from dataclasses import dataclass
from typing import Final

from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.ingress.endpoints import CredentialsByEndpoint
from services.ingress.http.answers import SITE
from services.ingress.http.request import Request

_EVERY_S: Final = 1.0
"""At most one line a second and reason: a flood of forgeries must not become a flood of logs."""

_GOOD: Final = 300


@dataclass(slots=True)
class _Sample:
    told_s: float = -_EVERY_S
    since: int = 0


class Telemetry:
    """What is counted and said."""

    def __init__(self, log: Logger, gates: CredentialsByEndpoint = dict) -> None:
        """Tell nothing yet.

        Args:
            log: Where.
            gates: Whose endpoints may be named; any other name is a stranger's text.
        """
        self._log = log
        self._gates = gates
        self._samples: dict[str, _Sample] = {}

    def answered(self, request: Request, now_s: float) -> None:
        """A request has its answer; what the site shows is none of the ingress.

        Args:
            request: Which.
            now_s: The loop's clock.
        """
        answer = request.given
        if answer is None or answer.reason == SITE:
            return
        metrics.INGRESS_ANSWERS.inc(answer.label, answer.reason)
        metrics.INGRESS_ANSWER_S.observe(now_s - request.begun_s)
        if answer.status >= _GOOD:
            endpoint = request.endpoint if request.endpoint in self._gates() else None
            self._sampled("refused", answer.reason, status=answer.status, endpoint=endpoint)

    def unwritten(self, reason: str) -> None:
        """A record was not written, or may not have been; `reason` is librdkafka's."""
        self._sampled("unwritten", reason)

    def recheck(self, reason: str, outcome: str) -> None:
        """A re-check was due: `asked`, `asked_before` (within five minutes), `no_room` or `unwritten`."""
        metrics.INGRESS_RECHECKS.labels(f"{reason}_{outcome}").inc()

    def previous_secret(self, endpoint: str) -> None:
        """A delivery was proved by the secret before the current one: its sender has not been told yet."""
        metrics.INGRESS_PREVIOUS_SECRET.inc(endpoint)

    def odd_marks(self) -> None:
        """An accepted delivery carries a retry mark that is no count."""
        metrics.INGRESS_ODD_MARKS.inc()

    def spool(self, event: str, **fields: object) -> None:
        """Something happened to a spool as a whole: `found`, `left`, `refused`, `aside`."""
        self._log.warning(f"spool {event}", **fields)

    def spool_closed(self, reason: str) -> None:
        """The spool takes no more records: `age`, `size`, `high_water`, or what its disk did."""
        metrics.INGRESS_SPOOL_CLOSED.labels(reason).inc()
        self._log.error("spool closed", reason=reason)

    def drained(self, result: str) -> None:
        """A spooled record was `written`, `expired` to dead letters, or `failed` and stays."""
        metrics.INGRESS_SPOOL_DRAINED.labels(result).inc()

    def breaker(self, state: str) -> None:
        """The breaker before Kafka is `open` or `closed` from now on."""
        self._log.warning("breaker", state=state)

    def broken(self) -> None:
        """A fault of ours; call where it is caught."""
        self._log.exception("broken")

    def _sampled(self, event: str, reason: str, **fields: object) -> None:
        sample = self._samples.setdefault(f"{event}/{reason}", _Sample())
        sample.since += 1
        now_s = time.monotonic()
        if now_s - sample.told_s >= _EVERY_S:
            self._log.warning(event, reason=reason, count=sample.since, **fields)
            sample.told_s, sample.since = now_s, 0
