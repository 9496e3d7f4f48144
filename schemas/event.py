"""Facts: what happened (`Event`), what the reconciler saw (`Observed`), and a wish to look again (`Recheck`)."""

from typing import ClassVar

from schemas.values import EventType, Instant, Json, Key, Record, Source, TenantId, Uuid


class Event(Record):
    """One lifecycle event, published once per uid; consumers deduplicate by `ce_id` or by `revision`."""

    ce_type: ClassVar[str] = "lifecycle.event.v1"

    key: Key
    uid: str
    """Identity within the key: `e:`, `s:`, `f:` (webhook) or `r:` (observation)."""
    event: EventType
    occurred_at: Instant
    """The least `eventTimestamp` seen for this uid when the record was written."""
    revision: int
    """1, 2, 3 … per key without gaps; never taken back."""
    tenant_id: TenantId | None
    source: Source
    configuration: Json
    """Published names only; everything else in a configuration is secret by default."""


class Observed(Record):
    """What one read of Genesys (or an operator) says of a key; folded as up to three events `r:{read_at}:{event}`."""

    ce_type: ClassVar[str] = "lifecycle.observed.v1"

    orgId: Uuid  # noqa: N815 - the sender's spelling, as in the webhook
    integrationId: Uuid  # noqa: N815
    tenant_id: TenantId | None = None
    read_at: Instant
    """The `Date` header of the first answer of the read: Genesys' clock, not ours."""
    installed: bool
    enabled: bool | None = None
    configuration: Json | None = None
    cause: str
    """Why it was read: `hourly`, `recheck`, `drift`, or `operator:NAME`."""
    source: Source = Source.RECONCILER

    @property
    def key(self) -> Key:
        """The key it speaks of."""
        return f"{self.orgId}:{self.integrationId}"


class Recheck(Record):
    """A wish that the reconciler asks Genesys about one key; changes no tenant."""

    ce_type: ClassVar[str] = "lifecycle.recheck.v1"

    key: Key
    reason: str
    at: Instant
