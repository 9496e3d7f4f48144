"""Opens a spool (new, left behind, or damaged) and keeps the index of its record numbers in memory.

Rule: a damaged database is never written to. Its readable records are copied into a new folder, which gets its name
only when the copy is complete; the damaged folder is then moved to `aside/`, unchanged, as evidence.

Crash window: a kill between the naming of the copy and the move leaves both folders. The next start adopts both, and
the records reach Kafka twice; the ledger recognises duplicates.
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

_SCAN_RECORDS: Final = 16
"""Records read at once while a folder is scanned. Each may be 2 MiB, so this bounds the memory to 32 MiB."""
_COMPACT_MIN: Final = 1_000
"""Deleted entries at the front from which the arrays are compacted; fewer are not worth the copy."""


class NewerVersion(SpoolError):
    """A later version of this program wrote the folder; the folder is left unchanged for that version."""


class SpoolIndex:
    """The sizes and receive times of a spool's records by number, at 16 bytes a record.

    Numbers run without a gap from `front` to `next - 1`, except the dropped ones. Records may be dropped in any order,
    but `front` moves only over dropped numbers, because RocksDB's records are deleted at the front only.

    Attributes:
        front: Number of the first live record; equals `next` if the spool is empty.
        size_bytes: Total encoded size of the live records.
    """

    def __init__(self, front: int) -> None:
        self.front = front
        self.size_bytes = 0
        # Number of the arrays' first element; lags behind `front`, so that not every drop copies the arrays.
        self._first = front
        self._sizes = array("q")
        self._times = array("q")
        self._dropped: set[int] = set()

    @property
    def next(self) -> int:
        """The number that the next appended record gets."""
        return self._first + len(self._sizes)

    @property
    def depth(self) -> int:
        """The count of live records."""
        return self.next - self.front - len(self._dropped)

    @property
    def oldest_us(self) -> int | None:
        """The receive time of the first live record, microseconds UTC; None if the spool is empty."""
        return self._times[self.front - self._first] if self.front < self.next else None

    def __contains__(self, number: int) -> bool:
        return self.front <= number < self.next and number not in self._dropped

    def add(self, size_bytes: int, received_at_us: int) -> None:
        """Add the record with number `next`."""
        self._sizes.append(size_bytes)
        self._times.append(received_at_us)
        self.size_bytes += size_bytes

    def drop(self, number: int) -> None:
        """Drop a record that was deleted or cannot be read; a number that is not live is ignored."""
        if number not in self:
            return
        self.size_bytes -= self._sizes[number - self._first]
        self._dropped.add(number)
        while self.front in self._dropped:
            self._dropped.remove(self.front)
            self.front += 1
        if self.front - self._first > max(_COMPACT_MIN, len(self._sizes) // 2):
            del self._sizes[: self.front - self._first], self._times[: self.front - self._first]
            self._first = self.front

    def oldest(self, most: int, size_bytes: int, without: Container[int] = ()) -> list[int]:
        """Return the numbers of the oldest live records.

        Args:
            most: Greatest count of numbers.
            size_bytes: Greatest total encoded size; the first record is returned whatever its size.
            without: Numbers to skip.
        """
        chosen: list[int] = []
        for number in range(self.front, self.next):
            if number in self._dropped or number in without:
                continue
            size_bytes -= self._sizes[number - self._first]
            # At least one record, whatever its size: a record above the limit must not block the spool.
            if chosen and (size_bytes < 0 or len(chosen) >= most):
                break
            chosen.append(number)
        return chosen


@dataclass(frozen=True, slots=True)
class Opened:
    """The parts of a spool that was just opened.

    Attributes:
        folder: Owned by this process.
        records: The open database.
        index: The readable records.
        damaged: Count of records known to be missing or bad; at least 1 if any file was damaged.
        evidence: True if the damage is in this folder; False if there is none, or if a folder in `aside/` holds it.
    """

    folder: Folder
    records: Records
    index: SpoolIndex
    damaged: int
    evidence: bool


def create(parent: Path, made_us: int) -> Opened:
    """Create and open an empty spool. Blocks, and holds the GIL while RocksDB opens.

    Args:
        parent: SPOOL_DIR.
        made_us: Creation time for the folder's name, microseconds UTC.

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


def adopt(path: Path) -> Opened:
    """Open a spool left behind by a dead process; salvage its records if RocksDB cannot open the database.

    Raises:
        FolderInUse: a running process owns the folder, or the folder is gone.
        NewerVersion: a later version of this program wrote the spool.
        SpoolError: the disk refuses.
    """
    folder = Folder.adopt(path)
    try:
        try:
            return _scanned(folder, Records(folder.path))
        except Damaged:
            folder = _salvaged(folder)
            found = _scanned(folder, Records(folder.path))
            # The damage went to `aside/` with the old folder; this folder has none of its own to keep.
            return replace(found, damaged=max(1, found.damaged), evidence=False)
    except NewerFormat as error:
        folder.release()
        raise NewerVersion(f"{path}: {error}") from None
    except (SpoolError, DiskError, Damaged, OSError) as error:
        folder.release()
        raise SpoolError(f"{path}: {error}") from None


def _scanned(folder: Folder, records: Records) -> Opened:
    """Read every record once, to build the index and to count the missing and the bad ones.

    Raises:
        NewerFormat: a later version wrote a record; the database is closed again.
    """
    index = SpoolIndex(records.front)
    missing = 0
    try:
        while index.next <= records.last:
            numbers = range(index.next, min(index.next + _SCAN_RECORDS, records.last + 1))
            for number, raw in zip(numbers, records.read(numbers), strict=True):
                at_us = _received_us(number, raw)
                # A missing number is added first and then dropped, so that the numbers stay without a gap.
                index.add(len(raw or b""), at_us or 0)
                if at_us is None:
                    index.drop(number)
                    missing += 1
    except NewerFormat:
        records.close()
        raise
    return Opened(folder, records, index, missing, evidence=missing > 0)


def _received_us(number: int, raw: bytes | None) -> int | None:
    """Return the receive time of an encoded record, microseconds UTC; None if the record is missing or bad."""
    try:
        return None if raw is None else received_us(number, raw)
    except Corrupt:
        return None


def _salvaged(old: Folder) -> Folder:
    """Copy the readable records of `old` into a new folder, move `old` to `aside/`, and return the new folder."""
    # The copy keeps the creation time, and with it the old folder's rank in the order of draining.
    new = Folder.begin(old.path.parent, old.made_us)
    try:
        with closing(Records(new.path)) as records:
            records.salvage(old.path)
        # Published before `old` goes: a kill in between repeats records, the opposite order would lose them.
        new.publish()
        old.move_aside(CORRUPT)
    except BaseException:
        new.remove()
        raise
    return new
