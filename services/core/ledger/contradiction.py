"""Search for events that contradict a suspected retry.

Rule: an event y is contradicted by an event between the first attempt of y and y, both times included, according to
this table (docs/decisions/0006):

| y | contradicted by |
|---|---|
| all but `uninstalled` | `uninstalled` |
| `uninstalled` | `installed` |
| `enabled` | `disabled` |
| `disabled` | `enabled` |
| `configuration_updated` | `installed` or `configuration_updated` with a different configuration |
| `installed` | `configuration_updated` with a different configuration, only if no first attempt is known |

Each search is a bisection: a storm of retries causes a search per journal entry.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from schemas.journal import Entry
from schemas.values import EventType

_OPPOSITE = {EventType.ENABLED: EventType.DISABLED, EventType.DISABLED: EventType.ENABLED}


class ConfigurationHistory:
    """Configurations in order of time, prepared for a search for a different configuration within a span."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._digests: list[str] = []
        # For each configuration the index of the newest earlier one with a different digest, -1 for none: `differ` need
        # not walk through the span.
        self._last_different: list[int] = []

    def append(self, at_us: int, digest: str) -> None:
        """Appends a configuration; `at_us` must not be below the time of the last one."""
        last = len(self._times) - 1
        same = last >= 0 and self._digests[last] == digest
        self._last_different.append(self._last_different[last] if same else last)
        self._times.append(at_us)
        self._digests.append(digest)

    def differ(self, digest: str, since_us: int, until_us: int) -> bool:
        """True if a configuration within the span, both ends included, differs from `digest`."""
        first, last = bisect_left(self._times, since_us), bisect_right(self._times, until_us) - 1
        if last < first:
            return False
        # If the last configuration of the span equals `digest`, only an earlier and different one can differ.
        return self._digests[last] != digest or self._last_different[last] >= first


class ContradictionIndex:
    """The events of a key, indexed by type and time."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Indexes the journal.

        Args:
            entries: The journal, sorted by order key.
        """
        self._times: dict[EventType, list[int]] = {event: [] for event in EventType}
        self._updates, self._configurations = ConfigurationHistory(), ConfigurationHistory()
        for entry in entries:
            self._times[entry.event].append(entry.at_us)
            if entry.digest is not None:
                self._configurations.append(entry.at_us, entry.digest)
                if entry.event is EventType.CONFIGURATION_UPDATED:
                    self._updates.append(entry.at_us, entry.digest)

    def contradicts(self, entry: Entry, since_us: int, *, orphan: bool) -> bool:
        """True if an event from `since_us` up to the entry contradicts the entry.

        Args:
            entry: The suspected retry, itself part of the index; no event contradicts itself.
            since_us: Time of the first attempt, or the entry's time less the span of retries; microseconds UTC.
            orphan: True if no first attempt is known.
        """
        until_us = entry.at_us
        if entry.event is EventType.UNINSTALLED:
            return self._any(EventType.INSTALLED, since_us, until_us)
        if self._any(EventType.UNINSTALLED, since_us, until_us):
            return True
        if entry.event in _OPPOSITE:
            return self._any(_OPPOSITE[entry.event], since_us, until_us)
        if entry.digest is None:  # an observed install: no configuration to contradict
            return False
        if entry.event is EventType.INSTALLED:
            return orphan and self._updates.differ(entry.digest, since_us, until_us)
        return self._configurations.differ(entry.digest, since_us, until_us)

    def _any(self, event: EventType, since_us: int, until_us: int) -> bool:
        """True if an event of this type lies within the span, both ends included."""
        times = self._times[event]
        found = bisect_left(times, since_us)
        return found < len(times) and times[found] <= until_us
