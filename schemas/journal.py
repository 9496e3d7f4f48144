"""Value types of the ledger's memory of a key: journal entries, registers, flag marks, changes of stage.

Rule: an entry holds everything needed to judge the event again, to fold the event again, and to publish the identical
record again. The types are tuples for speed: a row holds hundreds of entries, and every record reads and writes a row.
"""

from enum import StrEnum
from typing import Any, NamedTuple

from schemas.tenant import Flag, Stage
from schemas.values import EventType, Source

# A tuple is stored as a JSON list, so the position of a field is its serialised name: a changelog may hold rows of
# older releases. Append new fields at the end, with a default, and never reorder or remove one (`schemas.rows._entry`
# counts).


class Verdict(StrEnum):
    """The decision about a record. The first three values judge a uid, the remaining values judge a single record."""

    NEW = "new"
    """An event of its own: folded into the registers and published."""
    ABSORBED = "absorbed"
    """A restamped retry of an earlier event: no effect."""
    AMBIGUOUS = "ambiguous"
    """A retry of either of two events, undecidable: no effect until Genesys was read."""
    DUPLICATE = "duplicate"
    """A repeated delivery of a known uid."""
    CONFLICT = "conflict"
    """A known uid with a different body."""
    LATE = "late"
    """An unknown uid from below the journal's memory: no effect, and a re-check of the key."""
    INVALID = "invalid"
    """An unreadable line (only of `lifecycle replay`)."""
    ASKED = "asked"
    """A re-check was requested; the record is no event."""
    FUTURE = "future"
    """An observation dated more than 90 s ahead of log time: to the dead letters."""
    TOO_LARGE = "too_large"
    """The row with this record would exceed a Kafka record: to the dead letters."""
    FORGOTTEN = "forgotten"
    """A replay of a record after the entry left the row: nothing is written."""


class Aspect(StrEnum):
    """The three aspects of a tenant's state; an event writes at least one aspect."""

    INSTALLED = "installed"
    ENABLED = "enabled"
    CONFIGURATION = "configuration"


class Register(NamedTuple):
    """A last-writer-wins register: the order key (τ, rank, uid) of the newest event, and the value of the event."""

    at_us: int
    rank: int
    uid: str
    value: Any = None


class Registers(NamedTuple):
    """The registers N, U, E and C of a key, and a fifth for the tenantId of the newest `installed` with a tenantId."""

    installed: Register | None = None
    uninstalled: Register | None = None
    """The value is None, or behind an audit's `uninstalled` the τ of the newest `uninstalled` from a further source."""
    enabled: Register | None = None
    """The value is true or false."""
    configuration: Register | None = None
    """The value is the digest of a text in `TenantRow.texts`."""
    tenant: Register | None = None
    """Separate from `installed`, because an observed install without a tenantId must not erase the tenantId."""


VARIANTS_MAX = 32
"""Limit of bodies per uid: a sender with a constant `eventId` must not grow a row beyond a Kafka record."""


class Variant(NamedTuple):
    """A body under a uid, where several different bodies claim the uid."""

    f: str
    """Keyed hash of the body's content."""
    event: EventType
    at_us: int
    """The least signed time among the deliveries of this variant, microseconds UTC."""
    marked: bool
    """True if every delivery of this variant was marked as a retry."""
    offset: int
    """Offset of the first delivery of this variant."""


class Published(NamedTuple):
    """The content of an event as published, kept once the counting variant or τ of the uid changed afterwards."""

    event: EventType
    at_us: int
    tenant_id: str | None
    digest: str | None
    source: Source


class Entry(NamedTuple):
    """An event of the journal. The first three fields are the event's order key, by which entries sort."""

    at_us: int
    """τ: the least signed time among the deliveries of the counting variant, microseconds UTC."""
    rank: int
    """Order of event types at an equal τ (`services.core.ledger.merge.RANK`)."""
    uid: str
    event: EventType
    f: str
    """Keyed hash of the event's content; a restamped retry has an equal hash."""
    marked: bool
    """True if every delivery of the counting variant was marked as a retry."""
    tenant_id: str | None
    digest: str | None
    """Digest of the configuration; None for an event without a configuration to write."""
    source: Source
    offset: int
    """Offset of the first delivery; -1 if the topic was recreated since."""
    verdict: Verdict = Verdict.NEW
    """The verdict by the whole journal; may change until the entry is frozen."""
    first_verdict: Verdict = Verdict.NEW
    """The verdict at the first arrival; a replay audits this verdict again, so it never changes."""
    frozen: bool = False
    """True if variant, τ, mark and verdict are final."""
    revision: int = 0
    """Revision of the published event; 0 if the event was not published under this uid."""
    revision_offset: int = -1
    """Offset of the record behind the revision; a replay of the record publishes the event again."""
    borrowed: int = 0
    """Revision of a restamp of this event, if the restamp was published first; else 0."""
    first_published: Published | None = None
    """The content as published, if the entry changed afterwards."""
    variants: tuple[Variant, ...] = ()
    """The bodies in order of arrival, at most `VARIANTS_MAX`; empty while the uid has a single body."""


class Parted(NamedTuple):
    """A folded entry, kept aside as long as Kafka may deliver the entry's records again."""

    offset: int
    """Records below this offset were judged with the entry in the journal."""
    entry: Entry


class Mark(NamedTuple):
    """A flag on an aspect, at a time; an observation of the aspect at or after the time clears the flag."""

    flag: Flag
    aspect: Aspect
    at_us: int


class ObservedTimes(NamedTuple):
    """The time of the newest observation of each aspect, microseconds UTC; 0 before the first."""

    installed: int = 0
    enabled: int = 0
    configuration: int = 0


class Move(NamedTuple):
    """A change of stage, kept in the row of the causing topic so that a replay writes the identical audit line."""

    offset: int
    """Offset of the causing record."""
    version: int
    """Version of the first `lifecycle.tenants` record with the new stage."""
    before: Stage | None
    after: Stage | None
    reason: str | None
    at_us: int
    """Log time of the causing record, microseconds UTC."""
