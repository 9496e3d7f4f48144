"""What lies between an event and its first attempt that says otherwise.

Rule, by the event that is judged; what lies between is at or after the first attempt and at or before it:

| judged | contradicted by |
|---|---|
| any but `uninstalled` | `uninstalled` |
| `uninstalled` | `installed` |
| `enabled`, `disabled` | the other of the two |
| `configuration_updated` | `installed` or `configuration_updated` with another configuration |
| `installed` | `configuration_updated` with another configuration, only where no first attempt is known |

Each question is a bisection, since a storm of retries asks as many of them as it has entries.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from schemas.journal import Entry
from schemas.values import EventType

_OTHER = {EventType.ENABLED: EventType.DISABLED, EventType.DISABLED: EventType.ENABLED}


class Configurations:
    """Configurations in the order they were written, each with the last one before it that differs."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._digests: list[str] = []
        self._another: list[int] = []

    def write(self, at_us: int, digest: str) -> None:
        """Add the next; times never fall."""
        last = len(self._times) - 1
        same = last >= 0 and self._digests[last] == digest
        self._another.append(self._another[last] if same else last)
        self._times.append(at_us)
        self._digests.append(digest)

    def differ(self, digest: str, since_us: int, until_us: int) -> bool:
        """Whether any written in this span is not `digest`."""
        first, last = bisect_left(self._times, since_us), bisect_right(self._times, until_us) - 1
        if last < first:
            return False
        return self._digests[last] != digest or self._another[last] >= first


class Between:
    """The events of a key, ready to be asked what lies between two times."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Read the journal once.

        Args:
            entries: Sorted.
        """
        self._times: dict[EventType, list[int]] = {event: [] for event in EventType}
        self._updates, self._configurations = Configurations(), Configurations()
        for entry in entries:
            self._times[entry.event].append(entry.at_us)
            if entry.digest is not None:
                self._configurations.write(entry.at_us, entry.digest)
                if entry.event is EventType.CONFIGURATION_UPDATED:
                    self._updates.write(entry.at_us, entry.digest)

    def contradicts(self, entry: Entry, since_us: int, *, orphan: bool) -> bool:
        """Whether something from `since_us` up to the entry says otherwise.

        Args:
            entry: Judged; itself among the events, which is no contradiction.
            since_us: Time of the first attempt, or as far back as a retry reaches.
            orphan: No first attempt is known.
        """
        until_us = entry.at_us
        if entry.event is EventType.UNINSTALLED:
            return self._any(EventType.INSTALLED, since_us, until_us)
        if self._any(EventType.UNINSTALLED, since_us, until_us):
            return True
        if entry.event in _OTHER:
            return self._any(_OTHER[entry.event], since_us, until_us)
        if entry.digest is None:
            return False
        if entry.event is EventType.INSTALLED:
            return orphan and self._updates.differ(entry.digest, since_us, until_us)
        return self._configurations.differ(entry.digest, since_us, until_us)

    def _any(self, event: EventType, since_us: int, until_us: int) -> bool:
        times = self._times[event]
        found = bisect_left(times, since_us)
        return found < len(times) and times[found] <= until_us
