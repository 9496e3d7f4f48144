"""Bounded memory of recent bodies and keys. Forgetting changes the wording of an answer, and loses no delivery."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from services.core.delivery.timestamp_rule import HORIZON_US, WINDOW_US

WRITTEN_MAX: Final = 100_000
"""About 20 MB."""

WRITTEN_US: Final = HORIZON_US + WINDOW_US
"""Bytes may be accepted first up to W before their signed time, and come again until the horizon after it."""

RECHECK_US: Final = 300_000_000
"""A re-check of a key is requested at most once in 5 minutes."""

RECHECK_MAX: Final = 10_000
"""Keys re-checked in 5 minutes at most: about 33 a second, which the rate limit of a Genesys organisation bears."""


class ExpiringSet:
    """Items added less than a given time ago. Beyond the cap, the item that was added longest ago is dropped."""

    def __init__(self, most: int, within_us: int) -> None:
        """Starts empty.

        Args:
            most: Cap of the number of items.
            within_us: Lifetime of an item after it was last added, microseconds.
        """
        self._most = most
        self._within_us = within_us
        # In the order of the last `add`, so expired items stand in front.
        self._added_us: OrderedDict[Hashable, int] = OrderedDict()
        self._next_expiry_us = 0
        """No item expires before."""

    def knows(self, item: Hashable, now_us: int) -> bool:
        """True if the item was added and has not expired.

        Args:
            item: Any hashable value.
            now_us: The clock, microseconds UTC.
        """
        if now_us >= self._next_expiry_us:
            self._expire(now_us)
        added_us = self._added_us.get(item)
        # Expiry above sees the front only, and a wall clock may be set back: so the item's own time is compared too.
        return added_us is not None and abs(now_us - added_us) < self._within_us

    def __len__(self) -> int:
        return len(self._added_us)

    def add(self, item: Hashable, now_us: int) -> None:
        """Adds the item, or renews its lifetime; `now_us` is the clock, microseconds UTC."""
        self._added_us[item] = now_us
        self._added_us.move_to_end(item)
        if len(self._added_us) > self._most:
            self._added_us.popitem(last=False)

    def discard(self, item: Hashable) -> None:
        """Removes the item if present."""
        self._added_us.pop(item, None)

    @property
    def full(self) -> bool:
        """True if adding a new item would drop an older one."""
        return len(self._added_us) >= self._most

    def _expire(self, now_us: int) -> None:
        oldest_us = next(iter(self._added_us.values()), now_us)
        while oldest_us <= now_us - self._within_us:
            self._added_us.popitem(last=False)
            oldest_us = next(iter(self._added_us.values()), now_us)
        self._next_expiry_us = oldest_us + self._within_us
