"""What becomes of a record, and what the last ones tell of the next."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

_FAILING: Final = 3
_FAILING_S: Final = 10.0
"""So many failures without an acknowledgement between say that the next delivery fails too, for so long."""


class WriteResult(StrEnum):
    """What is known of a record when the sender must be answered."""

    WRITTEN = "written"
    """Every in-sync replica has it."""
    SPOOLED = "spooled"
    """It is on our disk, fsynced, and will be written."""
    UNWRITTEN = "unwritten"
    """It was not written, or may not have been."""
    REFUSED = "refused"
    """There was no room for it."""


OnResult = Callable[[WriteResult], None]
"""Told once in time; and once more when a report that comes later says that the record is durable after all."""


class RecentFailures:
    """Counts records that Kafka did not acknowledge, since the last one that it did."""

    __slots__ = ("_count", "_last_s")

    def __init__(self) -> None:
        self._count = 0
        self._last_s = 0.0

    def add(self, now_s: float) -> None:
        """One more was not acknowledged in time."""
        self._count += 1
        self._last_s = now_s

    def clear(self) -> None:
        """One was acknowledged."""
        self._count = 0

    def said(self, now_s: float) -> str:
        """Returns why the next record would fail; empty text where nothing says so."""
        if self._count < _FAILING or now_s - self._last_s > _FAILING_S:
            return ""
        return f"the last {self._count} records were not acknowledged in time"
