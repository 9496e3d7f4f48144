"""The result of a durable write, and the count of recent failures, which predicts the next result."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

_FAILING: Final = 3
_FAILING_S: Final = 10.0
"""After `_FAILING` failures without an acknowledgement between, the next record is expected to fail too, for
`_FAILING_S` after the last failure."""


class WriteResult(StrEnum):
    """The state of a record when the sender must be answered."""

    WRITTEN = "written"
    """Every in-sync replica has the record."""
    SPOOLED = "spooled"
    """The record is fsynced in the spool, and the drainer will write the record to Kafka."""
    UNWRITTEN = "unwritten"
    """The record was not written, or may not have been."""
    REFUSED = "refused"
    """The record had room neither in flight to Kafka nor in the spool."""


OnResult = Callable[[WriteResult], None]
"""Called once in time, and a second time when a later report shows that the record is durable after all."""


class RecentFailures:
    """Counts the records in a row without an acknowledgement of Kafka."""

    __slots__ = ("_count", "_last_s")

    def __init__(self) -> None:
        self._count = 0
        self._last_s = 0.0

    def add(self, now_s: float) -> None:
        """Counts a record without an acknowledgement in time; `now_s` is the loop's clock."""
        self._count += 1
        self._last_s = now_s

    def clear(self) -> None:
        """Resets the count after an acknowledgement."""
        self._count = 0

    def said(self, now_s: float) -> str:
        """Returns why the next record would fail; empty text where no failure is expected."""
        if self._count < _FAILING or now_s - self._last_s > _FAILING_S:
            return ""
        return f"the last {self._count} records were not acknowledged in time"
