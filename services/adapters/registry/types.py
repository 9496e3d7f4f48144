"""What the registry hands out and answers: a leased row, what is to be published, and the four ends of a write."""

import time
from dataclasses import dataclass

from schemas.saga import Journal
from schemas.tenant import Desired


@dataclass(slots=True)
class Claim:
    """A leased row, as last written or read.

    Attributes:
        key: `orgId:integrationId`.
        epoch: Of this lease; greater than any before.
        desired: The newest version known.
        journal: As last committed.
        held_until_s: `time.monotonic()` at which the lease may have ended.
        skew_us: What the database's clock shows beyond `time.monotonic()`.
    """

    key: str
    epoch: int
    desired: Desired
    journal: Journal
    held_until_s: float
    skew_us: int

    def now_us(self) -> int:
        """Microseconds UTC by the clock of the database: whoever drives a saga next reads what is written by it."""
        return time.monotonic_ns() // 1_000 + self.skew_us

    def is_held(self) -> bool:
        """True while the lease cannot have ended; a call may begin only then."""
        return time.monotonic() < self.held_until_s


@dataclass(frozen=True, slots=True)
class Written:
    """It is committed, and the lease goes on or was given back as asked."""


@dataclass(frozen=True, slots=True)
class NewerDesired:
    """A newer desired version has come; the claim has it.

    Attributes:
        written: This turn is committed all the same: it was so before, and its answer was lost.
    """

    written: bool


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Nothing was written: another worker has the row."""


@dataclass(frozen=True, slots=True)
class TenantTaken:
    """Nothing was written: another organisation has this tenantId."""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A record to be published once the turn that it belongs to is committed.

    Attributes:
        topic: Its topic's name, without prefix.
        seq: 1, 2, 3 … per key and topic.
        value: JSON.
    """

    topic: str
    seq: int
    value: bytes


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A saying that Kafka has not acknowledged."""

    id: int
    key: str
    topic: str
    seq: int
    value: bytes


@dataclass(frozen=True, slots=True)
class RowProgress:
    """How far a row has come.

    Attributes:
        seq: Outcomes it counts; None where this release cannot read its journal.
        generation: The newest life's.
        desired_version: The newest stored.
    """

    seq: int | None
    generation: int
    desired_version: int


@dataclass(frozen=True, slots=True)
class SagaRow:
    """A saga as an operator sees it.

    Attributes:
        key: `orgId:integrationId`.
        desired_version: The newest.
        phase: Of its journal.
        generation: The newest life's.
        tenant_id: The recorded binding, while a life is on.
        waits_for: The outside system it waits for, where that is away.
        why: Why it waits, where its journal does not say so.
        due_s: When it is due next, seconds since 1970; None: when a newer version comes.
        changed_s: When something was last written.
        worker: Who drives it now.
        journal: As last written.
    """

    key: str
    desired_version: int
    phase: str
    generation: int
    tenant_id: str | None
    waits_for: str | None
    why: str | None
    due_s: float | None
    changed_s: float
    worker: str | None
    journal: Journal
