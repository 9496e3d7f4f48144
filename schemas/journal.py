"""What the ledger remembers of a key, word by word: entries of the journal, registers, marks, moves.

Rule: what an entry holds is enough to judge it again, to fold it again and to tell the same event again to the byte.
These are tuples, since a row holds hundreds of them and is read and written once a record.
"""

from enum import StrEnum
from typing import Any, NamedTuple

from schemas.tenant import Flag, Stage
from schemas.values import EventType, Source


class Verdict(StrEnum):
    """What was decided about one record. The first three judge a uid, the others the record that told it."""

    NEW = "new"
    ABSORBED = "absorbed"
    AMBIGUOUS = "ambiguous"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    LATE = "late"
    INVALID = "invalid"
    ASKED = "asked"
    """A re-check was asked; no event."""
    FUTURE = "future"
    """An observation from a clock far ahead of the log's: to the dead letters."""
    TOO_LARGE = "too_large"
    """The row would not fit into a record of Kafka with it: to the dead letters."""
    FORGOTTEN = "forgotten"
    """A repeat from below everything the journal remembers: nothing is written."""


class Aspect(StrEnum):
    """The three things an event can say of a tenant."""

    INSTALLED = "installed"
    ENABLED = "enabled"
    CONFIGURATION = "configuration"


class Register(NamedTuple):
    """One last-writer-wins register: the version (τ, rank, uid) of its event and the value it wrote."""

    at_us: int
    rank: int
    uid: str
    value: Any = None


class Registers(NamedTuple):
    """The registers N, U, E and C of a key, and the newest tenantId that an install named."""

    installed: Register | None = None
    uninstalled: Register | None = None
    enabled: Register | None = None
    """Its value is true or false."""
    configuration: Register | None = None
    """Its value is the digest of a text in the row."""
    tenant: Register | None = None
    """An observed install without a tenantId leaves it alone, so it is a register of its own."""


VARIANTS_MAX = 32
"""Bodies kept of one uid: a sender that gives one id to everything must not make a row that Kafka refuses."""


class Variant(NamedTuple):
    """One of several bodies that claim one uid."""

    f: str
    event: EventType
    at_us: int
    marked: bool
    offset: int
    """Of the first delivery of this variant."""


class Published(NamedTuple):
    """What `lifecycle.events` was told of a uid whose counting variant or τ became another since."""

    event: EventType
    at_us: int
    tenant_id: str | None
    digest: str | None
    source: Source


class Entry(NamedTuple):
    """One uid of the journal. The first three fields are its version, so entries sort as events do."""

    at_us: int
    """τ: the least signed time among the deliveries of the counting variant."""
    rank: int
    uid: str
    event: EventType
    f: str
    """Keyed hash of what the event says: equal for a restamped retry."""
    marked: bool
    """All deliveries of the counting variant were marked as retries."""
    tenant_id: str | None
    digest: str | None
    """Of the configuration, for the events that write it."""
    source: Source
    offset: int
    """Of the first delivery; -1 when that was in a topic that was made anew since."""
    verdict: Verdict = Verdict.NEW
    greeted: Verdict = Verdict.NEW
    """The verdict on arrival, which the audit trail keeps."""
    frozen: bool = False
    """Variant, τ, mark and verdict are final."""
    revision: int = 0
    """0: not published under its own uid."""
    given: int = -1
    """Offset at which the revision was given."""
    borrowed: int = 0
    """Revision of a restamp of this event that was published first."""
    told: Published | None = None
    variants: tuple[Variant, ...] = ()
    """In order of arrival; empty while there is only one; at most `VARIANTS_MAX`."""


class Parted(NamedTuple):
    """An entry that folded while its offsets may still be delivered again."""

    offset: int
    """A record below it found the entry in the journal."""
    entry: Entry


class Mark(NamedTuple):
    """A flag on one aspect, at one time; an observation of the aspect at or after it ends it."""

    flag: Flag
    aspect: Aspect
    at_us: int


class ObservedTimes(NamedTuple):
    """Per aspect the time of its newest observation, 0 before the first."""

    installed: int = 0
    enabled: int = 0
    configuration: int = 0


class Move(NamedTuple):
    """A change of stage that a record of this row's topic caused, kept for an identical audit line on replay."""

    offset: int
    version: int
    """Of the `lifecycle.tenants` record that first showed it."""
    before: Stage | None
    after: Stage | None
    reason: str | None
    at_us: int
