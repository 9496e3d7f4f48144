"""What one process remembers, bounded in size and time. Forgetting costs a word in an answer, never a delivery."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from services.core.delivery.timestamp_rule import HORIZON_US, WINDOW_US

WRITTEN_MAX: Final = 100_000
"""About 20 MB."""

WRITTEN_US: Final = HORIZON_US + WINDOW_US
"""Bytes first accepted up to W before their signed time may come again until the horizon."""

RECHECK_US: Final = 300_000_000
"""A key is asked about at most once in 5 minutes."""

RECHECK_MAX: Final = 10_000
"""Keys asked about in 5 minutes at most: about 33 a second, what one Genesys organisation's rate limit bears."""


class ExpiringSet:
    """Which things happened less than a given time ago; of more than `most`, the longest untouched is forgotten."""

    def __init__(self, most: int, within_us: int) -> None:
        self._most = most
        self._within_us = within_us
        self._at_us: OrderedDict[Hashable, int] = OrderedDict()
        self._forget_us = 0
        """Nothing is too old before."""

    def knows(self, thing: Hashable, now_us: int) -> bool:
        """Whether it happened, and not too long ago."""
        if now_us >= self._forget_us:
            self._forget(now_us)
        at_us = self._at_us.get(thing)
        return at_us is not None and abs(now_us - at_us) < self._within_us  # a clock may have been set back

    def __len__(self) -> int:
        return len(self._at_us)

    def add(self, thing: Hashable, now_us: int) -> None:
        """It happens now."""
        self._at_us[thing] = now_us
        self._at_us.move_to_end(thing)
        if len(self._at_us) > self._most:
            self._at_us.popitem(last=False)

    def discard(self, thing: Hashable) -> None:
        """It did not happen after all."""
        self._at_us.pop(thing, None)

    @property
    def full(self) -> bool:
        """Whether one more would push another out."""
        return len(self._at_us) >= self._most

    def _forget(self, now_us: int) -> None:
        oldest_us = next(iter(self._at_us.values()), now_us)
        while oldest_us <= now_us - self._within_us:
            self._at_us.popitem(last=False)
            oldest_us = next(iter(self._at_us.values()), now_us)
        self._forget_us = oldest_us + self._within_us
