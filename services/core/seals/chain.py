"""The chain of seals in one partition of the audit trail, folded from the records in the order of the log.

Rules:
- The log decides between two sealers: of two genuine seals with an equal number the first in the log extends the chain.
  The second is passed over, and the next seal covers it by the hash `former`. So no lock is needed
  (docs/decisions/0039).
- A seal more than `WINDOW` offsets behind its range is passed over as well. So a reader compares every seal in one pass
  and in bounded memory: only the records of the last `WINDOW` offsets are kept one by one.
- A fault never stops the fold. After a missing seal the comparison starts anew at the next seal.
"""

import hmac
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

from schemas import codec
from schemas.seal import Seal
from schemas.stored import StoredRecord
from services.core.ledger.identity import canonical, keyed

WINDOW: Final = 100_000
"""Greatest distance of a seal from the end of its range, in offsets."""
DUE_PART: Final = 0.8
"""Part of the interval after which a partition is sealed again. Less than 1, because the sealer's looks have jitter;
great enough that two sealers together write about as many seals as one."""

_AUDIT_MAC: Final = re.compile(rb'"mac":"([0-9a-f]{64})"\}\Z')
"""The end of an audit record as our services write it. No value has to be parsed for a seal."""
_AUDIT_MAC_BYTES: Final = 73
_BEFORE_ALL: Final = -(2**63)


class BreachKind(StrEnum):
    """Sort of a difference between a partition and its seals."""

    MISSING = "missing"
    """Fewer records stand in a sealed range than were sealed."""
    INSERTED = "inserted"
    """More records stand in a sealed range than were sealed."""
    REORDERED = "reordered"
    """As many records, but in a different order, or different ones."""
    FORGED_SEAL = "forged_seal"
    """A seal that no key of ours signed, or a genuine one at a foreign place."""
    MISSING_SEAL = "missing_seal"
    """A number is missing in the chain, or the seals in a range are not the sealed ones."""
    BEGINNING_GONE = "beginning_gone"
    """The log begins inside the range of its first seal."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A difference between a partition and its seals.

    Attributes:
        kind: Sort of the fault.
        offset: Offset of the seal that shows the fault.
        text: The fault in words.
        gone_at_us: For `BEGINNING_GONE`: a time at which something that is gone was still to come, microseconds UTC.
            Everything gone by retention is older.
    """

    kind: BreachKind
    offset: int
    text: str
    gone_at_us: int = 0


@dataclass(frozen=True, slots=True)
class Unsealed:
    """The records behind the last sealed range.

    Attributes:
        count: Number of records, seals left out.
        since_us: Timestamp of the first one, microseconds UTC; None without records.
    """

    count: int
    since_us: int | None


class _Entry(NamedTuple):
    """A record of the fold; `content` is what the hash of its sort takes, a line feed included."""

    offset: int
    at_us: int
    is_seal: bool
    content: bytes


@dataclass(slots=True)
class _Range:
    """The digests of a range that grows record by record."""

    count: int = 0
    first_at_us: int = 0
    macs: Any = field(default_factory=sha256)
    seals: int = 0
    former: Any = field(default_factory=sha256)

    def absorb(self, entry: _Entry) -> None:
        if entry.is_seal:
            self.seals += 1
            self.former.update(entry.content)
            return
        if not self.count:
            self.first_at_us = entry.at_us
        self.count += 1
        self.macs.update(entry.content)

    @property
    def former_hash(self) -> str | None:
        return self.former.hexdigest() if self.seals else None


class SealChain:
    """Folds the records of one partition; finds the newest seal, the faults, and the content of the next seal."""

    def __init__(self, partition: int, materials: Sequence[bytes]) -> None:
        """Starts before the first record.

        Args:
            partition: Number of the partition.
            materials: All keys of `material.seal`, the newest first.
        """
        self.head: Seal | None = None
        """The newest seal of the chain."""
        self.head_hash = ""
        """SHA-256 over the value of `head`, as hex."""
        self.seals = 0
        """Number of seals in the chain so far."""
        self.passed_over = 0
        """Number of genuine seals outside the chain: of a second sealer, repeated, or too late."""
        self._partition, self._materials = partition, materials
        self._start: int | None = None
        self._range = _Range()
        self._recent: deque[_Entry] = deque()

    def add(self, record: StoredRecord) -> tuple[Breach, ...]:
        """Adds the next record in the order of the log, and returns the faults that show at this record."""
        self._start = record.offset if self._start is None else self._start
        faults: tuple[Breach, ...] = ()
        value = record.value or b""
        if is_seal(record):
            faults = tuple(self._judge(record))
            # With the offset, so that a seal cannot change places with a record unnoticed.
            content = b"%d %b\n" % (record.offset, value)
        else:
            content = _mac_of(value) + b"\n"
        self._recent.append(_Entry(record.offset, record.at_us, is_seal(record), content))
        self._absorb_before(record.offset - WINDOW)
        return faults

    @property
    def unsealed(self) -> Unsealed:
        """Returns the count and the first time of the records behind the last sealed range."""
        recent = [entry.at_us for entry in self._recent if not entry.is_seal]
        count = self._range.count + len(recent)
        since_us = self._range.first_at_us if self._range.count else (recent[0] if recent else None)
        return Unsealed(count, since_us)

    def next_seal(self, first: int, end: int, at_us: int) -> Seal | None:
        """Returns the next seal without a signature (see `signed`); None if no record is unsealed.

        The chain takes no further record afterwards.

        Args:
            first: First offset of the log, for the first seal.
            end: Offset behind the last record added.
            at_us: Time of sealing, microseconds UTC.
        """
        self._absorb_before(end)
        found, head = self._range, self.head
        if not found.count:
            return None
        return Seal(
            partition=self._partition,
            number=1 if head is None else head.number + 1,
            first=first if head is None else head.next,
            next=end,
            count=found.count,
            macs=found.macs.hexdigest(),
            former=found.former_hash,
            first_at=found.first_at_us,
            former_at=None if head is None else head.at,
            at=at_us,
            mac="",
        )

    def _absorb_before(self, offset: int) -> None:
        while self._recent and self._recent[0].offset < offset:
            self._range.absorb(self._recent.popleft())

    def _judge(self, record: StoredRecord) -> Iterator[Breach]:
        """Yields the faults that a seal shows, and makes a seal of the chain the head."""
        seal = genuine(record, self._materials)
        if seal is None:
            yield Breach(BreachKind.FORGED_SEAL, record.offset, "no key of the keyring has signed this seal")
        elif not is_in_place(seal, self._partition, record.offset):
            place = f"partition {seal.partition}, behind offset {seal.next - 1}"
            yield Breach(BreachKind.FORGED_SEAL, record.offset, f"a seal that belongs to {place}")
        elif record.offset - seal.next > WINDOW or (self.head is not None and seal.number <= self.head.number):
            self.passed_over += 1
        else:
            self._absorb_before(seal.next)
            yield from self._differences(seal, record.offset)
            self.head, self.head_hash = seal, sha256(record.value or b"").hexdigest()
            self.seals += 1
            self._range = _Range()

    def _differences(self, seal: Seal, offset: int) -> Iterator[Breach]:
        """Yields the differences between a seal and the records of its range."""
        head, found = self.head, self._range
        start = seal.first if self._start is None else self._start
        follows = head is None or (seal.number, seal.first) == (head.number + 1, head.next)
        # The log begins inside the range. The former seal may be gone, and the first seal that is left be its rival.
        is_cut = start > seal.first
        if not is_cut and (not follows or (head is None and start < seal.first)):
            # What stands before belongs to a seal that is gone, so the records cannot be told apart any more.
            yield Breach(BreachKind.MISSING_SEAL, offset, _gap(head, seal, start))
            return
        is_short, former_differs = found.count < seal.count, found.former_hash != seal.former
        if is_cut and (is_short or former_differs):
            text = f"what stood before offset {start} is gone; seal {seal.number} covered it from {seal.first} on"
            gone = [seal.first_at] if follows and is_short else []
            gone += [seal.former_at] if seal.former_at is not None and (not follows or former_differs) else []
            yield Breach(BreachKind.BEGINNING_GONE, offset, text, max(gone, default=_BEFORE_ALL))
            if not follows or is_short:
                return
        elif former_differs:
            text = f"the seals between offsets {seal.first} and {seal.next} are not those that seal {seal.number} names"
            yield Breach(BreachKind.MISSING_SEAL, offset, text)
        if fault := _records_fault(seal, found):
            kind, what = fault
            where = f"offsets {seal.first} to {seal.next - 1}, seal {seal.number}"
            yield Breach(kind, offset, f"{where}: {what}")


def _gap(head: Seal | None, seal: Seal, start: int) -> str:
    """Returns the words for a seal that does not follow the seal, or the beginning, before it."""
    if head is None:
        return f"records from offset {start} on stand before seal {seal.number}, which begins at {seal.first}"
    if seal.number == head.number + 1:
        return f"seal {seal.number} begins at offset {seal.first}, and seal {head.number} ends before {head.next}"
    gone = head.number + 1 if seal.number == head.number + 2 else f"{head.number + 1} to {seal.number - 1}"
    return f"seal {gone} is missing before seal {seal.number}"


def _records_fault(seal: Seal, found: _Range) -> tuple[BreachKind, str] | None:
    """Returns kind and words of a difference between the sealed records and those found; None without one."""
    if found.count < seal.count:
        return BreachKind.MISSING, f"{seal.count - found.count} of {seal.count} sealed records are missing"
    if found.count > seal.count:
        return BreachKind.INSERTED, f"{found.count - seal.count} records were inserted after the sealing"
    if not hmac.compare_digest(found.macs.hexdigest().encode(), seal.macs.encode()):
        return BreachKind.REORDERED, "other records than were sealed, or in another order"
    return None


def is_seal(record: StoredRecord) -> bool:
    """True if a record of the audit trail is a seal, by its header, and not an audit record."""
    return record.headers.get("ce_type") == Seal.ce_type


def genuine(record: StoredRecord, materials: Sequence[bytes]) -> Seal | None:
    """Returns the seal in a record; None if the record is no seal, cannot be read, or no key has signed it."""
    if not is_seal(record):
        return None
    try:
        seal = codec.decode(Seal, record.value)
    except codec.Unreadable:
        return None
    # A list, not a generator: all MACs are computed before the first comparison.
    macs = [_seal_mac(seal, material) for material in materials]
    return seal if any(hmac.compare_digest(mac.encode(), seal.mac.encode()) for mac in macs) else None


def is_in_place(seal: Seal, partition: int, offset: int) -> bool:
    """True if a seal stands in the partition that it seals and behind its range."""
    return seal.partition == partition and offset >= seal.next


def signed(seal: Seal, material: bytes) -> Seal:
    """Returns a seal with its MAC under the newest key of `material.seal`."""
    return seal.model_copy(update={"mac": _seal_mac(seal, material)})


def message(seal: Seal) -> codec.Message:
    """Returns a signed seal as a message for the topic `lifecycle.audit`, to be sent into the sealed partition."""
    # Two sealers may write a seal of one number over different ranges, so the end of the range is part of the id.
    ce_id = f"{seal.partition}/seal/{seal.number}/{seal.next}"
    return codec.encode(seal, key=None, ce_id=ce_id, source="/genesys-lifecycle/reconciler", at_us=seal.at)


def is_due(head: Seal | None, now_us: int, interval_us: int) -> bool:
    """True if a partition with unsealed records is to be sealed now.

    The age of the newest seal decides, whoever wrote that seal: a second sealer finds the work done. A seal dated more
    than an interval ahead comes from a clock that was wrong, and says nothing: to wait for its time could take years.
    """
    return head is None or not -interval_us <= now_us - head.at < DUE_PART * interval_us


def _seal_mac(seal: Seal, material: bytes) -> str:
    return keyed(material, canonical(seal.model_dump(mode="json", exclude={"mac"})))


def _mac_of(value: bytes) -> bytes:
    """Returns the MAC of an audit record as in the record; of any other value the SHA-256 as hex."""
    if found := _AUDIT_MAC.search(value[-_AUDIT_MAC_BYTES:]):
        return found[1]
    return sha256(value).hexdigest().encode()
