"""The circuit breaker before an outside system: whether sagas may call it, or wait for one of them to find it well.

Rule: it opens when calls of `FAILURES` different keys failed in a row, so that no tenant's own trouble stops another.
Once open, one saga at a time is let through every `PROBE_S`; whatever the system answers then closes it. Pure: the
time comes in, in seconds of any clock that does not jump.
"""

from typing import Final

FAILURES: Final = 5
"""As before Kafka (spec section 2)."""
PROBE_S: Final = 5.0
AWAY_S: Final = 60.0
"""Spec section 6: waits are at most this long. Whoever waits is woken when the system is well again."""


class Circuit:
    """What one process knows of one system."""

    __slots__ = ("_failing", "_probe_s", "open")

    def __init__(self) -> None:
        self.open = False
        self._failing: set[str] = set()
        self._probe_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.open and not self._failing

    def failed(self, key: str, now_s: float) -> None:
        """A call got no answer, or one that says that the system is in trouble.

        Args:
            key: Whose.
            now_s: The clock.
        """
        self._failing.add(key)
        if not self.open and len(self._failing) >= FAILURES:
            self.open, self._probe_s = True, now_s + PROBE_S

    def answered(self) -> bool:
        """The system answered a call; whether that closes the circuit."""
        was_open, self.open = self.open, False
        self._failing.clear()
        return was_open

    def wait_s(self, now_s: float, chance: float) -> float:
        """How long a saga that wants to call stays away; 0: it may call now, and while it is open is the probe.

        Args:
            now_s: The clock.
            chance: From 0 to 1: so that of many who wait somebody comes for each probe.
        """
        if not self.open:
            return 0.0
        if now_s < self._probe_s:
            return PROBE_S + chance * (AWAY_S - PROBE_S)
        self._probe_s = now_s + PROBE_S
        return 0.0
