"""Opening a spool: a new one, one left behind, or what can be read of a damaged one; and what is in it.

Rule: what RocksDB refuses is not written to. What can be read of it is copied into a folder of its own, whole before it
has its name, and the damaged one is put aside with every byte it has.
"""

from array import array
from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from schemas.spooled import Corrupt, NewerFormat, received_us
from services.adapters.spool.folder import Folder, SpoolError
from services.adapters.spool.records import Damaged, DiskError, Records

CORRUPT: Final = "corrupt"

_LOOK: Final = 16
"""Records read at once while a folder is looked through; each may have 2 MiB."""
_TRIM: Final = 1_000


class NewerVersion(SpoolError):
    """A later version of this program wrote the folder: it is left as it is, for that version."""


class SpoolIndex:
    """Which numbers are in a spool, how large and how old, at 16 bytes each: from `front` on, unless dropped."""

    def __init__(self, front: int) -> None:
        self.front = front
        self.size_bytes = 0
        self._first = front
        self._sizes = array("q")
        self._times = array("q")
        self._dropped: set[int] = set()

    @property
    def next(self) -> int:
        """The number of the next record."""
        return self._first + len(self._sizes)

    @property
    def depth(self) -> int:
        """How many records."""
        return self.next - self.front - len(self._dropped)

    @property
    def oldest_us(self) -> int | None:
        """When the first one was received."""
        return self._times[self.front - self._first] if self.front < self.next else None

    def __contains__(self, number: int) -> bool:
        return self.front <= number < self.next and number not in self._dropped

    def add(self, size_bytes: int, received_at_us: int) -> None:
        """The next number is there."""
        self._sizes.append(size_bytes)
        self._times.append(received_at_us)
        self.size_bytes += size_bytes

    def drop(self, number: int) -> None:
        """A number is not there, or no more."""
        if number not in self:
            return
        self.size_bytes -= self._sizes[number - self._first]
        self._dropped.add(number)
        while self.front in self._dropped:
            self._dropped.remove(self.front)
            self.front += 1
        if self.front - self._first > max(_TRIM, len(self._sizes) // 2):
            del self._sizes[: self.front - self._first], self._times[: self.front - self._first]
            self._first = self.front

    def oldest(self, most: int, size_bytes: int, without: Container[int] = ()) -> list[int]:
        """The first numbers that are not in `without`, at most so many and so large, but at least one."""
        chosen: list[int] = []
        for number in range(self.front, self.next):
            if number in self._dropped or number in without:
                continue
            size_bytes -= self._sizes[number - self._first]
            if chosen and (size_bytes < 0 or len(chosen) >= most):
                break
            chosen.append(number)
        return chosen


@dataclass(frozen=True, slots=True)
class Opened:
    """An open spool.

    Attributes:
        folder: Owned.
        records: Open.
        stock: What can be read.
        damaged: How many records are known to be missing or bad; at least 1 where anything was damaged.
        evidence: Whether there is damage to be seen in this folder, and not in one that is aside.
    """

    folder: Folder
    records: Records
    stock: SpoolIndex
    damaged: int
    evidence: bool


def make(parent: Path, made_us: int) -> Opened:
    """Open a new one.

    Raises:
        SpoolError: the disk refuses.
    """
    folder = Folder.begin(parent, made_us)
    try:
        folder.publish()
        records = Records(folder.path)
    except (SpoolError, DiskError, Damaged) as error:
        folder.remove()
        raise SpoolError(f"{parent}: {error}") from None
    return Opened(folder, records, SpoolIndex(records.front), 0, evidence=False)


def take(path: Path) -> Opened:
    """Open one left behind.

    Raises:
        Taken: somebody else has it.
        NewerVersion: it is not for us.
        SpoolError: the disk refuses.
    """
    folder = Folder.take(path)
    try:
        try:
            return _looked_through(folder, Records(folder.path))
        except Damaged:
            folder = _salvaged(folder)
            found = _looked_through(folder, Records(folder.path))
            return replace(found, damaged=max(1, found.damaged), evidence=False)
    except NewerFormat as error:
        folder.release()
        raise NewerVersion(f"{path}: {error}") from None
    except (SpoolError, DiskError, Damaged, OSError) as error:
        folder.release()
        raise SpoolError(f"{path}: {error}") from None


def _looked_through(folder: Folder, records: Records) -> Opened:
    stock = SpoolIndex(records.front)
    missing = 0
    try:
        while stock.next <= records.last:
            numbers = range(stock.next, min(stock.next + _LOOK, records.last + 1))
            for number, raw in zip(numbers, records.read(numbers), strict=True):
                at_us = _time(number, raw)
                stock.add(len(raw or b""), at_us or 0)
                if at_us is None:
                    stock.drop(number)
                    missing += 1
    except NewerFormat:
        records.close()
        raise
    return Opened(folder, records, stock, missing, evidence=missing > 0)


def _time(number: int, raw: bytes | None) -> int | None:
    try:
        return None if raw is None else received_us(number, raw)
    except Corrupt:
        return None


def _salvaged(old: Folder) -> Folder:
    """A folder with what can be read of `old`, which goes aside."""
    new = Folder.begin(old.path.parent, old.made_us)
    try:
        with closing(Records(new.path)) as records:
            records.salvage(old.path)
        new.publish()
        old.aside(CORRUPT)
    except BaseException:
        new.remove()
        raise
    return new
