"""Telemetry of the ingress: one call a decision gives the metric and, sampled, the log line.

Rule: no body, no secret, no header and no identifier of a request that did not prove itself is logged.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from services.adapters import metrics
from services.adapters.logs import Logger
from services.ingress.answers import Answer

_EVERY_S: Final = 1.0
"""At most one line a second and reason: a flood of forgeries must not become a flood of logs."""

_GOOD: Final = 300


@dataclass(slots=True)
class _Sample:
    told_s: float = -_EVERY_S
    since: int = 0


class Telling:
    """What is counted and said."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._samples: dict[str, _Sample] = {}
        self._counters: dict[str, Any] = {}

    def answered(self, answer: Answer, seconds: float, endpoint: str | None) -> None:
        """One request was answered.

        Args:
            answer: How.
            seconds: From its first byte.
            endpoint: By which endpoint of the keyring; None when it named no such one.
        """
        counter = self._counters.get(answer.reason)
        if counter is None:
            counter = metrics.INGRESS_ANSWERS.labels(str(answer.status), answer.reason)
            self._counters[answer.reason] = counter
        counter.inc()
        metrics.INGRESS_ANSWER_S.observe(seconds)
        if answer.status >= _GOOD:
            self._sampled("refused", answer.reason, status=answer.status, endpoint=endpoint)

    def unwritten(self, reason: str) -> None:
        """A record was not written, or may not have been; `reason` is librdkafka's."""
        self._sampled("unwritten", reason)

    def recheck(self, reason: str, outcome: str) -> None:
        """A re-check was due: `asked`, `asked_before` (within five minutes), `no_room` or `unwritten`."""
        metrics.INGRESS_RECHECKS.labels(f"{reason}_{outcome}").inc()

    def odd_marks(self) -> None:
        """An accepted delivery carries a retry mark that is no count."""
        metrics.INGRESS_ODD_MARKS.inc()

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
