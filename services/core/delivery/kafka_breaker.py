"""The circuit breaker before Kafka: whether deliveries go there, or straight to the spool.

Rule: it opens on `FAILURES` failures in a row, or when more than one acknowledgement in a hundred of the last
`WINDOW_S` took longer than `SLOW_S`. Once open, one probe is let through every `PROBE_S`, and only a probe that
succeeds closes it, or the end of every spool behind it. Pure: the time comes in, in seconds of any clock that does not
jump.
Source of the constants: an answer takes at most 2.7 s.
"""

from enum import StrEnum
from math import inf
from typing import Final

FAILURES: Final = 5
SLOW_S: Final = 1.0
"""Near the 1.2 s after which a delivery is spooled anyway."""
WINDOW_S: Final = 10.0
SLOW_LEAST: Final = 5
"""One slow acknowledgement among few is no percentile."""
PROBE_S: Final = 5.0


class BreakerState(StrEnum):
    """Where deliveries go."""

    CLOSED = "closed"
    """To Kafka."""
    OPEN = "open"
    """To the spool."""
    HALF_OPEN = "half_open"
    """To the spool, while a probe is under way."""


class KafkaBreaker:
    """What one process knows of its Kafka."""

    __slots__ = ("_acks", "_failures", "_half_s", "_probe_s", "_since_s", "_slow", "state")

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._acks = [0, 0]
        self._slow = [0, 0]
        self._half_s = 0.0
        self._probe_s = 0.0
        self._since_s = -inf

    def acked(self, now_s: float, took_s: float) -> None:
        """A record was acknowledged, in time or late.

        Args:
            now_s: The clock.
            took_s: Since it was sent.
        """
        self._failures = 0
        if now_s >= self._half_s:
            self._turn(now_s)
        self._acks[0] += 1
        if took_s > SLOW_S and now_s - took_s >= self._since_s:  # what was sent before it closed tells of then
            self._slow[0] += 1
            slow = sum(self._slow)
            if slow >= SLOW_LEAST and slow * 100 > sum(self._acks):
                self._open(now_s)

    def failed(self, now_s: float) -> None:
        """A record was not acknowledged in time, or refused; told once a record."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._open(now_s)

    def may_probe(self, now_s: float) -> bool:
        """Whether one record may try now; whoever is told yes says how it went (`probed`)."""
        if self.state is not BreakerState.OPEN or now_s < self._probe_s:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    def forgo(self) -> None:
        """Whoever was told yes has nothing to try: the next who asks may."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def probed(self, now_s: float, *, well: bool) -> None:
        """The probe came back; late news once the breaker is closed."""
        if self.state is BreakerState.CLOSED:
            return
        if well:
            self.state, self._failures, self._half_s, self._since_s = BreakerState.CLOSED, 0, 0.0, now_s
            self._acks, self._slow = [0, 0], [0, 0]
        else:
            self.state, self._probe_s = BreakerState.OPEN, now_s + PROBE_S

    def _open(self, now_s: float) -> None:
        if self.state is BreakerState.CLOSED:
            self.state, self._probe_s = BreakerState.OPEN, now_s

    def _turn(self, now_s: float) -> None:
        """Half a window is over; what is older than two halves counts no more."""
        stale = now_s >= self._half_s + WINDOW_S / 2
        self._acks = [0, 0 if stale else self._acks[0]]
        self._slow = [0, 0 if stale else self._slow[0]]
        self._half_s = now_s + WINDOW_S / 2
