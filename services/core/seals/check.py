"""The verification of the audit trail: every record by its MAC, and every sealed range by its seal.

Rule: what an honest installation does is no finding. The beginning of the trail goes by retention, the newest records
wait for the next seal, two sealers may write a seal each, and a crash repeats records equal to the byte. The report
names all of these beside the findings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from schemas import codec
from schemas.audit import Audit
from schemas.stored import StoredRecord
from services.core.ledger.audit import is_genuine
from services.core.seals.chain import Breach, BreachKind, SealChain, Unsealed, is_seal

KEPT_OF_A_KIND: Final = 20
"""Findings of one kind that are kept one by one; further ones are counted."""


class FindingKind(StrEnum):
    """Sort of a finding: the faults of the chain, and those of a record or a partition alone."""

    CHANGED = "changed"
    """A record with a wrong MAC, under a foreign key, or unreadable."""
    MISSING = BreachKind.MISSING.value
    INSERTED = BreachKind.INSERTED.value
    REORDERED = BreachKind.REORDERED.value
    """Other records than were sealed, or in another order; or offsets that do not rise."""
    FORGED_SEAL = BreachKind.FORGED_SEAL.value
    MISSING_SEAL = BreachKind.MISSING_SEAL.value
    BEGINNING_GONE = BreachKind.BEGINNING_GONE.value
    """Records are gone that retention would have kept."""
    UNSEALED = "unsealed"
    """Records have waited for a seal for too long: no sealer works, or the newest seals were removed."""


@dataclass(frozen=True, slots=True)
class TrailFinding:
    """A reason why the trail does not verify.

    Attributes:
        kind: Sort of the finding.
        partition: Number of the partition.
        offset: Offset of the record, or of the seal that shows the fault.
        text: The finding in words, without a value of the record.
    """

    kind: FindingKind
    partition: int
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """The state of one partition.

    Attributes:
        partition: Number of the partition.
        records: Number of audit records read.
        seals: Number of seals in the chain.
        passed_over: Number of genuine seals outside the chain, of a second sealer for example.
        head_number: Number of the newest seal; None without a seal.
        head_hash: SHA-256 over the value of the newest seal, as hex; empty without a seal.
        head_at_us: Time of the newest seal, microseconds UTC; None without a seal.
        unsealed: The records behind the last sealed range.
        gone: Words about the beginning that retention has removed; empty for none.
    """

    partition: int
    records: int
    seals: int
    passed_over: int
    head_number: int | None
    head_hash: str
    head_at_us: int | None
    unsealed: Unsealed
    gone: str


@dataclass(frozen=True, slots=True)
class TrailReport:
    """The result of a verification.

    Attributes:
        partitions: The state of each partition with records, by number.
        findings: The findings in the order of reading, of each kind the first `KEPT_OF_A_KIND`.
        counts: Number of all findings by kind.
        until_us: The end of the trail in time, from which ages count; microseconds UTC.
    """

    partitions: tuple[PartitionReport, ...]
    findings: tuple[TrailFinding, ...]
    counts: dict[FindingKind, int]
    until_us: int


@dataclass(frozen=True, slots=True)
class KnownSeal:
    """The newest seal of a partition at an earlier verification, kept where nobody can alter it with the trail.

    Attributes:
        number: Number of the seal.
        sha256: SHA-256 over the value of the seal, as hex.
        at_us: Time of sealing, microseconds UTC.
    """

    number: int
    sha256: str
    at_us: int


@dataclass(frozen=True, slots=True)
class TrailRules:
    """What a trail is verified against.

    Attributes:
        audit: All keys of `material.audit`.
        seal: All keys of `material.seal`.
        retention_us: Least retention of the topic, microseconds.
        unsealed_us: Longest honest wait of a record for its seal, microseconds.
        known: By partition: a seal that the trail must still hold, unless retention explains its absence.
    """

    audit: Sequence[bytes]
    seal: Sequence[bytes]
    retention_us: int
    unsealed_us: int
    known: Mapping[int, KnownSeal] = field(default_factory=dict)


class _Partition:
    """The fold of one partition."""

    def __init__(self, number: int, rules: TrailRules) -> None:
        self.chain = SealChain(number, rules.seal)
        self.records = 0
        self.last_offset = -1
        self.gone: Breach | None = None


class TrailCheck:
    """Verifies the records of a trail one by one, in bounded memory; partitions may be mixed."""

    def __init__(self, rules: TrailRules) -> None:
        """Starts before the first record."""
        self._rules = rules
        self._partitions: dict[int, _Partition] = {}
        self._findings: list[TrailFinding] = []
        self._counts: Counter[FindingKind] = Counter()
        self._newest_us = 0
        self._unseen = dict(rules.known)

    def add(self, record: StoredRecord) -> None:
        """Verifies the next record of its partition."""
        number, offset = record.partition, record.offset
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = _Partition(number, self._rules)
        if offset <= partition.last_offset:
            text = f"stands behind offset {partition.last_offset}"
            self._find(FindingKind.REORDERED, number, offset, text)
        partition.last_offset = offset
        self._newest_us = max(self._newest_us, record.at_us)
        if not is_seal(record):
            partition.records += 1
            if text := _record_fault(record, self._rules.audit):
                self._find(FindingKind.CHANGED, number, offset, text)
        for fault in partition.chain.add(record):
            if fault.kind is BreachKind.BEGINNING_GONE:
                # The youngest is the hardest for retention to explain.
                partition.gone = max(partition.gone or fault, fault, key=lambda one: one.gone_at_us)
            else:
                self._find(FindingKind(fault.kind.value), number, fault.offset, fault.text)
        if number in self._unseen and partition.chain.head_hash == self._unseen[number].sha256:
            del self._unseen[number]

    def report(self, now_us: int, until_us: int | None = None) -> TrailReport:
        """Returns the result after the last record.

        Args:
            now_us: Our clock, microseconds UTC; older than retention by this clock may be gone.
            until_us: The time up to which the trail was read, microseconds UTC; None: the newest timestamp in the
                trail, for a file of an earlier time.
        """
        until = self._newest_us if until_us is None else until_us
        for number, known in self._unseen.items():
            if known.at_us > now_us - self._rules.retention_us:
                text = f"seal {known.number} of an earlier verification is not in the trail any more"
                last = self._partitions[number].last_offset if number in self._partitions else 0
                self._find(FindingKind.MISSING_SEAL, number, last, text)
        for number, partition in self._partitions.items():
            gone = partition.gone
            if gone is not None and gone.gone_at_us > now_us - self._rules.retention_us:
                self._find(FindingKind.BEGINNING_GONE, number, gone.offset, f"{gone.text}, too early for retention")
                partition.gone = None
            waiting = partition.chain.unsealed
            age_us = 0 if waiting.since_us is None else until - waiting.since_us
            if age_us > self._rules.unsealed_us:
                text = f"{waiting.count} records wait for a seal, the first for {age_us // 60_000_000} min"
                self._find(FindingKind.UNSEALED, number, partition.last_offset, text)
        reports = tuple(_reported(number, self._partitions[number]) for number in sorted(self._partitions))
        return TrailReport(reports, tuple(self._findings), dict(self._counts), until)

    def _find(self, kind: FindingKind, partition: int, offset: int, text: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= KEPT_OF_A_KIND:
            self._findings.append(TrailFinding(kind, partition, offset, text))


def _record_fault(record: StoredRecord, materials: Sequence[bytes]) -> str:
    """Returns the fault of an audit record in words; empty for a genuine record."""
    try:
        line = codec.decode(Audit, record.value)
    except codec.Unreadable as fault:
        return f"no audit record: {fault}"
    if not is_genuine(line, materials):
        return "the MAC does not belong to the record: it was changed, or no key of the keyring has signed it"
    return "" if line.key == record.key else "the record of another tenant than its Kafka key says"


def _reported(number: int, partition: _Partition) -> PartitionReport:
    chain, head = partition.chain, partition.chain.head
    return PartitionReport(
        partition=number,
        records=partition.records,
        seals=chain.seals,
        passed_over=chain.passed_over,
        head_number=None if head is None else head.number,
        head_hash=chain.head_hash,
        head_at_us=None if head is None else head.at,
        unsealed=chain.unsealed,
        gone="" if partition.gone is None else partition.gone.text,
    )
