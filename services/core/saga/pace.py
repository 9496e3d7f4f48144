"""The waits of a saga: between the tries of a step, until a tenant is unwell, and until the next provisioning.

Rule: a wait doubles with each failure, up to a limit. A wait asked for by a system is kept, up to an hour.
The jitter is a hash of a seed and not a random number, because decisions are pure: a replayed turn must compute an
equal wait. The defaults and their reasons: docs/decisions/0033.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

ASKED_MOST_S: Final = 3_600.0
"""Seconds: the longest `Retry-After` of a system that a saga keeps."""

_DOUBLINGS: Final = 16
"""Limit of the exponent: a wait is at its maximum long before, and a greater power would overflow a float."""
_SPREAD: Final = 0.02
"""Part of a wait that is jitter, so that tenants rolled back together are not provisioned again at one instant."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Waits of the sagas of one worker.

    Attributes:
        first_s: Longest wait after the first failed call of a step; doubled with each further failure, full jitter.
        most_s: Limit of the doubling of `first_s`.
        unwell_s: A tenant that has stood at one step for longer is unwell.
        again_first_s: Wait from the end of a compensation to the next provisioning; doubled with each compensation.
        again_most_s: Limit of the doubling of `again_first_s`.
    """

    first_s: float = 1.0
    most_s: float = 60.0
    unwell_s: float = 900.0
    again_first_s: float = 3_600.0
    again_most_s: float = 86_400.0

    @property
    def unwell_us(self) -> int:
        """`unwell_s` in microseconds."""
        return int(self.unwell_s * 1_000_000)

    def wait_us(self, tries: int, seed: str, asked_s: float | None) -> int:
        """Returns the wait after try number `tries`, in microseconds.

        Args:
            tries: Number of the failed try: 1, 2, 3 …
            seed: Source of the jitter: equal seeds give equal waits.
            asked_s: Wait asked for by the system, in seconds, or None; the longer of both waits is kept.
        """
        wait_s = min(self.most_s, self.first_s * 2 ** min(tries - 1, _DOUBLINGS)) * _jitter(f"{seed}/{tries}")
        return int(max(wait_s, min(ASKED_MOST_S, asked_s or 0.0)) * 1_000_000)

    def again_us(self, rollbacks: int, seed: str) -> int:
        """Returns the wait after a compensation, in microseconds.

        Args:
            rollbacks: Compensations in a row, this one included: 1, 2, 3 …
            seed: Source of the jitter: equal seeds give equal waits.
        """
        wait_s = min(self.again_most_s, self.again_first_s * 2 ** min(rollbacks - 1, _DOUBLINGS))
        return int(wait_s * (1 + _SPREAD * _jitter(f"{seed}/{rollbacks}")) * 1_000_000)


def _jitter(seed: str) -> float:
    """Returns a number from 0 to 1, equal for equal seeds."""
    return int.from_bytes(sha256(seed.encode()).digest()[:4], "big") / 2**32
