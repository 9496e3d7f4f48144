"""Circuit breaker of one outside system, as one worker sees the system.

Problem: a system with an outage must not cost every tenant a timeout, and a single poison tenant must not close the
system for all tenants.

Rule: the breaker counts keys, not calls. The circuit opens when calls of several different keys have failed alike
in a row: `FAILURES` keys with an outage, or `REFUSALS` keys with a refusal of the operator's own credentials or
set-up. A failure of one kind clears the count of the other kind. An open circuit lets one saga at a time through as a
probe, and any good answer closes the circuit. Pure: the time is an argument, in seconds of a monotonic clock.
"""

from typing import Final

FAILURES: Final = 5
"""Keys with an outage that open the circuit; equal to the breaker before Kafka (core/delivery/kafka_breaker.py)."""
REFUSALS: Final = 2
"""Keys with a refusal of the operator that open the circuit. One key may be refused for a reason of its own."""
PROBE_S: Final = 5.0
"""Seconds between two probes of a system with an outage."""
AWAY_S: Final = 60.0
"""Seconds: the longest wait of a saga, and the time between two probes of a system that refuses the operator. A longer
wait is not needed to spare the system, because waiting sagas are woken when the circuit closes."""


class SystemBreaker:
    """State of one system in one worker.

    Attributes:
        open: True while the circuit is open: sagas wait, except for probes.
        operator_refused: True while the newest failure was a refusal of the operator's own credentials or set-up.
    """

    __slots__ = ("_away_s", "_failing", "_probe_s", "_refused", "open", "operator_refused")

    def __init__(self, away_s: float = AWAY_S) -> None:
        """Closes the circuit, with no failures counted.

        Args:
            away_s: Seconds: the longest wait, and the time between two probes of a system that refuses the operator.
        """
        self._away_s = away_s
        self.open = False
        self.operator_refused = False
        self._failing: set[str] = set()
        self._refused: set[str] = set()
        self._probe_s = 0.0

    @property
    def idle(self) -> bool:
        """True if the circuit is closed and no failure is counted, so the breaker can be dropped and made anew."""
        return not self.open and not self._failing and not self._refused

    @property
    def _probe_every_s(self) -> float:
        return min(PROBE_S, self._away_s)

    def failed(self, key: str, now_s: float) -> None:
        """Counts a call without an answer, or with an answer that reports trouble of the system.

        Args:
            key: Key of the calling saga.
            now_s: Seconds of the monotonic clock.
        """
        self.operator_refused = False
        self._refused.clear()
        self._failing.add(key)
        if not self.open and len(self._failing) >= FAILURES:
            self.open, self._probe_s = True, now_s + self._probe_every_s

    def refused(self, key: str, now_s: float) -> None:
        """Counts a call that was refused for the operator's own credentials or set-up.

        Args:
            key: Key of the calling saga.
            now_s: Seconds of the monotonic clock.
        """
        self.operator_refused = True
        self._failing.clear()
        self._refused.add(key)
        if not self.open and len(self._refused) >= REFUSALS:
            # The first probe comes after seconds: two tenants may be refused for reasons of their own, and must not
            # hold up all tenants for a minute.
            self.open, self._probe_s = True, now_s + self._probe_every_s

    def answered(self) -> None:
        """Clears all counts after a good answer and closes the circuit."""
        self.open = self.operator_refused = False
        self._failing.clear()
        self._refused.clear()

    def wait_s(self, key: str, now_s: float, chance: float) -> float:
        """Returns the wait of a saga before the next call, in seconds.

        0 admits the call; while the circuit is open the admitted call is the probe, and the time of the next probe is
        set. A refused tenant is admitted as the probe only if no other saga came within `PROBE_S`.

        Args:
            key: Key of the saga.
            now_s: Seconds of the monotonic clock.
            chance: Random number from 0 to 1. Spread waits make some waiting saga come back in time for each probe.
        """
        if not self.open:
            return 0.0
        # Tenants refused for a reason of their own would take every probe, and the circuit would never close for the
        # rest; so the refused tenants are admitted later than all others.
        if self.operator_refused and now_s < self._probe_s + (self._probe_every_s if key in self._refused else 0.0):
            return max(self._probe_s - now_s, 0.0) + max(chance, 0.1) * self._probe_every_s
        if now_s < self._probe_s:
            return self._probe_every_s + chance * (self._away_s - self._probe_every_s)
        # Set before the answer is known, so that no second saga is admitted while the probe is under way.
        self._probe_s = now_s + (self._away_s if self.operator_refused else self._probe_every_s)
        return 0.0
