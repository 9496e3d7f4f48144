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
    """

    key: str
    epoch: int
    desired: Desired
    journal: Journal
    held_until_s: float

    def is_held(self) -> bool:
        """True while the lease cannot have ended; a call may begin only then."""
        return time.monotonic() < self.held_until_s


@dataclass(frozen=True, slots=True)
class Written:
    """It is committed, and the lease goes on or was given back as asked."""


@dataclass(frozen=True, slots=True)
class Newer:
    """A newer desired version has come; the claim has it.

    Attributes:
        written: This turn is committed all the same: it was so before, and its answer was lost.
    """

    written: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing was written: another worker has the row."""


@dataclass(frozen=True, slots=True)
class TenantTaken:
    """Nothing was written: another organisation has this tenantId."""


@dataclass(frozen=True, slots=True)
class Saying:
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
class Unacknowledged:
    """A saying that Kafka has not acknowledged."""

    id: int
    key: str
    topic: str
    seq: int
    value: bytes
