"""The registry's values: a leased row, outbox messages, a row's progress, the results of a write, and removals."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from schemas.saga import Journal
from schemas.tenant import Desired


@dataclass(frozen=True, slots=True)
class Arrival:
    """A desired version to be stored.

    Attributes:
        desired: The version.
        trace: The `traceparent` of the record; None without a trace.
    """

    desired: Desired
    trace: str | None


@dataclass(slots=True)
class Claim:
    """A leased row, as last written or read by this worker.

    Attributes:
        key: `orgId:integrationId`.
        epoch: The lease's number; greater than every earlier epoch of the row.
        desired: The newest version that this worker has read.
        journal: The journal as last committed.
        held_until_s: Value of `time.monotonic()` from which the lease may have ended.
        skew_us: The database's clock (µs UTC) minus `time.monotonic()` in µs, measured at the claim.
        trace: The `traceparent` that came with `desired`; None without a trace.
        open_calls: The `traceparent` of the newest call that is not done, by step; as last committed.
    """

    key: str
    epoch: int
    desired: Desired
    journal: Journal
    held_until_s: float
    skew_us: int
    trace: str | None = None
    open_calls: dict[str, str] = field(default_factory=dict)

    def now_us(self) -> int:
        """Return the database's time, microseconds UTC.

        Journals carry times of this clock, because another worker may drive the saga next.
        """
        return time.monotonic_ns() // 1_000 + self.skew_us

    def is_held(self) -> bool:
        """True while the lease cannot have ended. A call to an outside system may begin only then."""
        return time.monotonic() < self.held_until_s


@dataclass(frozen=True, slots=True)
class Written:
    """The turn is committed, and the lease was renewed or given back as asked."""


@dataclass(frozen=True, slots=True)
class NewerDesired:
    """A newer desired version was stored meanwhile; `Claim.desired` holds the newer version.

    Attributes:
        written: True if this turn is committed: an earlier try was, and the answer was lost.
    """

    written: bool


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Nothing was written: the row has a newer epoch, or is gone."""


@dataclass(frozen=True, slots=True)
class TenantTaken:
    """Nothing was written: the tenantId is bound to a different organisation."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wait of a saga, as stored in the row.

    Attributes:
        system: The outside system whose return makes the row due (`wake`), regardless of the due time.
        why: The reason for waiting, for operators, where the journal does not give the reason.
        because: The word by which the row is counted (`census`).
        since_us: Time since which the row stands there, microseconds UTC; None: since the first write of this word.
    """

    system: str | None = None
    why: str | None = None
    because: str | None = None
    since_us: int | None = None


NOT_WAITING: Final = Waiting()


@dataclass(frozen=True, slots=True)
class Counted:
    """A count of rows.

    Attributes:
        number: Number of the rows.
        oldest_s: Age of the oldest row in seconds; 0 without a row.
    """

    number: int = 0
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Census:
    """Counts of the whole registry.

    Attributes:
        sagas: All sagas, by the word of `Waiting.because`; a word without a saga is left out.
        unwell: Tenants that have stood at a step for long, by step.
        oldest_due_s: Time since which the oldest due row without a lease is due, seconds since 1970; 0 without one.
        outbox: Records that Kafka has not acknowledged yet.
    """

    sagas: Mapping[str, Counted]
    unwell: Mapping[str, int]
    oldest_due_s: float
    outbox: Counted


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A record to be published after the commit of its turn.

    Attributes:
        topic: The topic's name, without the prefix.
        seq: 1, 2, 3 … per key and topic.
        value: The record's value, as JSON.
    """

    topic: str
    seq: int
    value: bytes


@dataclass(frozen=True, slots=True)
class AdoptedRow:
    """A row for a key that the registry does not have: an adopted life.

    Attributes:
        desired: The version that the vendor's file tells; older than every version of the ledger.
        journal: The journal with the adopted life.
        message: The audit record of the adoption.
    """

    desired: Desired
    journal: Journal
    message: OutboxMessage


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An outbox message not yet acknowledged by Kafka.

    Attributes:
        id: Order of publishing.
        key: `orgId:integrationId`.
        topic: The topic's name, without the prefix.
        seq: 1, 2, 3 … per key and topic.
        value: The record's value, as JSON.
        trace: The `traceparent` to send along; None without a trace.
    """

    id: int
    key: str
    topic: str
    seq: int
    value: bytes
    trace: str | None


@dataclass(frozen=True, slots=True)
class RowProgress:
    """The progress of a row.

    Attributes:
        seq: Count of outcomes in the journal; None if this release cannot read the journal.
        generation: Generation of the newest life.
        desired_version: The newest stored version.
    """

    seq: int | None
    generation: int
    desired_version: int


@dataclass(frozen=True, slots=True)
class RemovalRules:
    """The limits of the brake: without an approval a window sees at most the greater of a number and a percentage.

    Attributes:
        at_once: Removals, whatever the number of tenants.
        percent: Removals as a percentage of the tenants that were applied as a whole.
        window_s: Length of the window, seconds.
    """

    at_once: int
    percent: int
    window_s: float


@dataclass(frozen=True, slots=True)
class Removal:
    """A teardown before the brake.

    Attributes:
        key: `orgId:integrationId`.
        generation: Generation of the life.
        began_us: Begin of the teardown, microseconds UTC: a life that was revived may be torn down once more.
        version: The desired version to carry out; a worker that died before its commit leaves no begin.
        installed_at_us: Time of the newest install, microseconds UTC: an approval is for the removal of one install.
    """

    key: str
    generation: int
    began_us: int
    version: int
    installed_at_us: int | None


class RemovalVerdict(StrEnum):
    """The brake's answer to a teardown."""

    ADMITTED = "admitted"
    HELD = "held"
    """Held until an operator approves, or the integration is installed again."""
    REFUSED = "refused"
    """Held, and an operator has refused the removal."""


class Unconfirmed(StrEnum):
    """The reason for which Genesys has not confirmed an admitted removal."""

    INSTALLED = "installed"
    """Genesys says that the integration is installed."""
    UNREAD = "unread"
    """Genesys gave no information."""


@dataclass(frozen=True, slots=True)
class HeldRemoval:
    """A teardown held by the brake.

    Attributes:
        key: `orgId:integrationId`.
        generation: Generation of the life.
        held_since_us: Begin of the hold, microseconds UTC.
        refused_by: Operator who refused the removal; None if nobody did.
        refused_at_us: Time of the refusal, microseconds UTC; None without one.
    """

    key: str
    generation: int
    held_since_us: int
    refused_by: str | None
    refused_at_us: int | None


@dataclass(frozen=True, slots=True)
class RemovalCounts:
    """The state of the brake.

    Attributes:
        counted: Removals asked for within the window, admitted or held; without those that an approval let go.
        limit: Removals that a window sees at most without an approval.
        held: Held removals that nobody refused.
        refused: Held removals that an operator refused.
        unconfirmed: Admitted removals that wait for Genesys, by the reason; a reason without one is left out.
    """

    counted: int
    limit: int
    held: int
    refused: int
    unconfirmed: Mapping[Unconfirmed, int]
