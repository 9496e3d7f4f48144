"""The circuit breaker before Kafka: a closed breaker sends deliveries to Kafka, an open breaker to the spool.

Rule: the breaker opens after `FAILURES` failures in a row, or if more than 1 % of the acknowledgements of the last
`WINDOW_S` took longer than `SLOW_S`. An open breaker allows a probe every `PROBE_S`, and closes only after a successful
probe. (`Spools` also reports a success for an acknowledgement while the spool is full, and after the last spool is
gone: no drainer can probe then.) Times are seconds of a monotonic clock, passed in by the caller.
Source of the constants: an answer to the sender takes at most 2.7 s.
"""

from enum import StrEnum
from math import inf
from typing import Final

# Theory. While Kafka is slow, every delivery would wait 1.2 s before the spool takes the record. The breaker skips this
# wait. Only the drainer of the spool probes Kafka, with spooled records; no delivery serves as a probe while the spool
# has room.
#
# The share of slow acknowledgements is counted in two buckets of half a window: the present half and the one before.
# Two counters per bucket replace a list of all acknowledgements of the last 10 s; the window is therefore 5 to 10 s
# long. The breaker is not locked: every caller runs in the ingress' event loop.

FAILURES: Final = 5
"""Failures in a row that open the breaker."""
SLOW_S: Final = 1.0
"""An acknowledgement above this time is slow. Close to the 1.2 s after which a delivery goes to the spool anyway."""
WINDOW_S: Final = 10.0
"""Greatest age of a counted acknowledgement."""
SLOW_LEAST: Final = 5
"""Slow acknowledgements needed to open the breaker: 1 % means nothing among few acknowledgements."""
PROBE_S: Final = 5.0
"""Time between a failed probe and the next probe."""


class BreakerState(StrEnum):
    """State of the breaker."""

    CLOSED = "closed"
    """Deliveries go to Kafka."""
    OPEN = "open"
    """Deliveries go to the spool."""
    HALF_OPEN = "half_open"
    """Deliveries go to the spool, and a probe is in progress."""


class KafkaBreaker:
    """The circuit breaker of a process.

    Attributes:
        state: The present state; changed by the methods alone.
    """

    __slots__ = ("_acks", "_closed_at_s", "_failures", "_half_ends_s", "_next_probe_s", "_slow", "state")

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self._failures = 0
        # All and slow acknowledgements, each of the present half of the window and of the half before.
        self._acks = [0, 0]
        self._slow = [0, 0]
        self._half_ends_s = 0.0
        self._next_probe_s = 0.0
        self._closed_at_s = -inf

    def acked(self, now_s: float, took_s: float) -> None:
        """Records an acknowledgement of Kafka, in time or late.

        Args:
            now_s: The present time, seconds.
            took_s: Time since the record was sent, seconds.
        """
        self._failures = 0
        if now_s >= self._half_ends_s:
            self._rotate(now_s)
        self._acks[0] += 1
        # A record sent before the breaker closed was slow during the former trouble: late acknowledgements of that time
        # would open the breaker again at once.
        if took_s > SLOW_S and now_s - took_s >= self._closed_at_s:
            self._slow[0] += 1
            slow = sum(self._slow)
            if slow >= SLOW_LEAST and slow * 100 > sum(self._acks):
                self._open(now_s)

    def failed(self, now_s: float) -> None:
        """Records a failure: a record was refused, or not acknowledged in time. Called once per record."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._open(now_s)

    def may_probe(self, now_s: float) -> bool:
        """True if the caller may send a probe now; the caller must then call `probed` or `forgo`."""
        if self.state is not BreakerState.OPEN or now_s < self._next_probe_s:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    def forgo(self) -> None:
        """Returns an unused permission of `may_probe`, so that the next caller may probe at once."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def probed(self, now_s: float, *, well: bool) -> None:
        """Records the result of a probe; ignored while the breaker is closed."""
        if self.state is BreakerState.CLOSED:
            return
        if well:
            self.state, self._failures, self._half_ends_s, self._closed_at_s = BreakerState.CLOSED, 0, 0.0, now_s
            self._acks, self._slow = [0, 0], [0, 0]
        else:
            self.state, self._next_probe_s = BreakerState.OPEN, now_s + PROBE_S

    def _open(self, now_s: float) -> None:
        # An open breaker stays as it is: further failures must not postpone the next probe.
        if self.state is BreakerState.CLOSED:
            self.state, self._next_probe_s = BreakerState.OPEN, now_s

    def _rotate(self, now_s: float) -> None:
        """Starts the next half of the window and drops the counters of the half before the last."""
        # After a pause of more than half a window both halves are too old.
        stale = now_s >= self._half_ends_s + WINDOW_S / 2
        self._acks = [0, 0 if stale else self._acks[0]]
        self._slow = [0, 0 if stale else self._slow[0]]
        self._half_ends_s = now_s + WINDOW_S / 2
