"""The waits of a saga: between the tries of a step, before a tenant counts as unwell, and before it is tried again.

Rule: a wait grows with the number of failures up to a limit, and a wait that a system asks for is kept, up to an hour.
The defaults and their reasons: docs/decisions/0033.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

ASKED_MOST_S: Final = 3_600.0
"""Longest wait that a system may ask for by `Retry-After`."""

_DOUBLINGS: Final = 16
_SPREAD: Final = 0.02
"""Tenants that were rolled back together are not provisioned again at one instant."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Waits of the sagas of one worker.

    Attributes:
        first_s: After the first call of a step that led nowhere; doubled after each further one, with full jitter.
        most_s: The longest of these.
        unwell_s: From this long at one step on a tenant counts as unwell.
        again_first_s: From the end of a compensation to the next provisioning; doubled after each further one.
        again_most_s: The longest of these.
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
            tries: 1, 2, 3 …
            seed: Decides the jitter: equal seeds wait equally long.
            asked_s: The wait that the system asked for, if any; a longer wait of our own is kept.
        """
        wait_s = min(self.most_s, self.first_s * 2 ** min(tries - 1, _DOUBLINGS)) * _jitter(f"{seed}/{tries}")
        return int(max(wait_s, min(ASKED_MOST_S, asked_s or 0.0)) * 1_000_000)

    def again_us(self, rollbacks: int, seed: str) -> int:
        """Returns the wait after compensation number `rollbacks` in a row, in microseconds; `seed` as in `wait_us`."""
        wait_s = min(self.again_most_s, self.again_first_s * 2 ** min(rollbacks - 1, _DOUBLINGS))
        return int(wait_s * (1 + _SPREAD * _jitter(f"{seed}/{rollbacks}")) * 1_000_000)


def _jitter(seed: str) -> float:
    """Returns a number from 0 to 1, equal for equal seeds."""
    return int.from_bytes(sha256(seed.encode()).digest()[:4], "big") / 2**32
