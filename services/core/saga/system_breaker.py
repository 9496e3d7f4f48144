"""The circuit breaker before an outside system: sagas may call the system, or wait until one of them finds it well.

Rule: the circuit opens when calls of several keys failed alike in a row, so that no tenant's own trouble stops another:
`FAILURES` keys without an answer (the system is away), or `REFUSALS` keys whose calls were refused for the operator's
own credentials or set-up (the system refuses us). Once open, one saga at a time is let through as a probe; any answer
that shows the system well closes the circuit. Pure: the time comes in, in seconds of any clock that does not jump.
"""

from typing import Final

FAILURES: Final = 5
"""As before Kafka (services/core/delivery/kafka_breaker.py)."""
REFUSALS: Final = 2
"""One refused key may be refused alone; a second one in a row means that everybody is."""
PROBE_S: Final = 5.0
AWAY_S: Final = 60.0
"""No wait is longer, and a system that refuses the operator is asked this often. Sagas that wait are woken when the
system is well again."""


class SystemBreaker:
    """What one process knows of one system."""

    __slots__ = ("_away_s", "_failing", "_probe_s", "_refused", "open", "refuses")

    def __init__(self, away_s: float = AWAY_S) -> None:
        """Remember nothing yet.

        Args:
            away_s: The longest wait, and the time between two probes of a system that refuses the operator.
        """
        self._away_s = away_s
        self.open = False
        self.refuses = False
        """True while the newest failure was a refusal of the operator's own credentials or set-up."""
        self._failing: set[str] = set()
        self._refused: set[str] = set()
        self._probe_s = 0.0

    @property
    def idle(self) -> bool:
        """True if there is nothing to remember."""
        return not self.open and not self._failing and not self._refused

    @property
    def _soon_s(self) -> float:
        return min(PROBE_S, self._away_s)

    def failed(self, key: str, now_s: float) -> None:
        """Notes that a call got no answer, or one that says that the system is in trouble.

        Args:
            key: Of the saga that called.
            now_s: The clock.
        """
        self.refuses = False
        self._refused.clear()
        self._failing.add(key)
        if not self.open and len(self._failing) >= FAILURES:
            self.open, self._probe_s = True, now_s + self._soon_s

    def refused(self, key: str, now_s: float) -> None:
        """Notes that a call was refused for the operator's own credentials or set-up.

        Args:
            key: Of the saga that called.
            now_s: The clock.
        """
        self.refuses = True
        self._failing.clear()
        self._refused.add(key)
        if not self.open and len(self._refused) >= REFUSALS:
            # The first probe comes soon: two tenants that are refused alone must not hold up the others for a minute.
            self.open, self._probe_s = True, now_s + self._soon_s

    def answered(self) -> bool:
        """Notes that the system answered a call; returns True if that closes the circuit."""
        was_open, self.open = self.open, False
        self.refuses = False
        self._failing.clear()
        self._refused.clear()
        return was_open

    def wait_s(self, key: str, now_s: float, chance: float) -> float:
        """Returns how long a saga that wants to call stays away; 0: it may call now, and while it is open is the probe.

        A tenant that was refused is the probe only where nobody else came in time: it may be refused alone.

        Args:
            key: Of the saga.
            now_s: The clock.
            chance: From 0 to 1: so that of many who wait somebody comes for each probe.
        """
        if not self.open:
            return 0.0
        if self.refuses and now_s < self._probe_s + (self._soon_s if key in self._refused else 0.0):
            return max(self._probe_s - now_s, 0.0) + max(chance, 0.1) * self._soon_s
        if now_s < self._probe_s:
            return self._soon_s + chance * (self._away_s - self._soon_s)
        self._probe_s = now_s + (self._away_s if self.refuses else self._soon_s)
        return 0.0
