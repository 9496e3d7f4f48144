"""One partition of an audit trail with seals, as honest services write it: in memory, by the functions of core."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from schemas.codec import Message, texts
from schemas.seal import Seal
from schemas.stored import StoredRecord
from schemas.topics import AUDIT
from services.core.ledger import audit
from services.core.seals import chain
from services.core.seals.check import TrailCheck, TrailReport, TrailRules

KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"
AUDIT_KEYS = (b"audit-key-of-a-test-installation", b"former-audit-key-of-the-same-one")
SEAL_KEYS = (b"seal-key-of-a-test-installation-", b"former-seal-key-of-the-same-one-")
HOUR_US = 3_600_000_000
RULES = TrailRules(AUDIT_KEYS, SEAL_KEYS, retention_us=400 * 24 * HOUR_US, unsealed_us=3 * HOUR_US)
BEGAN_US = 1_705_329_130_000_000


@dataclass
class SealedTrail:
    """A partition that grows; every second offset is free, as after transactions."""

    partition: int = 3
    records: list[StoredRecord] = field(default_factory=list)
    now_us: int = BEGAN_US
    _lines: int = 0

    @property
    def end(self) -> int:
        return 2 * len(self.records) + 10

    def write(self, material: bytes = AUDIT_KEYS[0]) -> None:
        """Appends a line of its own."""
        self._lines += 1
        one = audit.line(
            line_id=f"t/0/{self._lines}/delivery", key=KEY, what="delivery", verdict="pending_install → active",
            why="because", at_us=self.now_us, material=material,
        )  # fmt: skip
        self.append(audit.message(one, "ledger", None))

    def repeat(self, back: int) -> None:
        """Appends an earlier record again, as after a crash."""
        lines = [record for record in self.records if not chain.is_seal(record)]
        if lines:
            one = lines[-1 - back % len(lines)]
            self.records.append(replace(one, offset=self.end, at_us=self.now_us))

    def read_by_a_sealer(self, material: bytes = SEAL_KEYS[0]) -> Seal | None:
        """The seal that a sealer makes that reads now: from the range of the last seal on."""
        last = next((one for r in reversed(self.records) if (one := chain.genuine(r, SEAL_KEYS))), None)
        first = self.records[0].offset if self.records else 0
        start = first if last is None else max(first, last.first)
        found = chain.SealChain(self.partition, SEAL_KEYS)
        for record in self.records:
            if record.offset >= start:
                assert all(fault.kind is chain.BreachKind.BEGINNING_GONE for fault in found.add(record))
        made = found.next_seal(first, self.end, self.now_us)
        return None if made is None else chain.signed(made, material)

    def seal(self, material: bytes = SEAL_KEYS[0]) -> None:
        """Seals what is unsealed, if anything is."""
        if made := self.read_by_a_sealer(material):
            self.append(chain.message(made))

    def append(self, message: Message) -> None:
        key, value, headers = message
        self.records.append(
            StoredRecord(
                AUDIT.name, self.partition, self.end, self.now_us, "" if key is None else key.decode(), value,
                texts(headers),
            )
        )  # fmt: skip

    def head(self) -> Seal | None:
        return chain_of(self.records, self.partition).head


def chain_of(records: Sequence[StoredRecord], partition: int = 3) -> chain.SealChain:
    found = chain.SealChain(partition, SEAL_KEYS)
    for record in records:
        found.add(record)
    return found


def checked(
    records: Sequence[StoredRecord], rules: TrailRules = RULES, *, now_us: int = BEGAN_US + 10 * HOUR_US
) -> TrailReport:
    """The report of a whole trail; ages count from its newest record."""
    found = TrailCheck(rules)
    for record in records:
        found.add(record)
    return found.report(now_us)
