"""Records of facts: lifecycle events (`Event`), reads of Genesys (`Observed`), requests for a read (`Recheck`)."""

from typing import ClassVar

from schemas.values import EventType, Instant, Json, Key, Record, Source, TenantId, Uuid


class Event(Record):
    """A lifecycle event. Kafka may repeat the record; consumers deduplicate by `ce_id` or by `revision`."""

    ce_type: ClassVar[str] = "lifecycle.event.v1"

    key: Key
    uid: str
    """Identity of the event within the key: `e:…`, `s:…` or `f:…` (webhook), `a:…` (audit), `r:…` (observation)."""
    event: EventType
    occurred_at: Instant
    """The least time known for this uid when the event was first published: `eventTimestamp` of a webhook, `eventTime`
    of an audit, `read_at` of an observation."""
    revision: int
    """1, 2, 3 … per key in order of arrival, without gaps; a published revision is never withdrawn. An event with a
    greater revision may have occurred earlier: the state of a tenant is in `lifecycle.tenants`, not in the last event.
    """
    tenant_id: TenantId | None
    source: Source
    configuration: Json
    """The published names only; every name outside `PUBLISHED_NAMES` counts as secret."""


class Observed(Record):
    """The state of a key as read from Genesys, by the reconciler or an operator's command.

    The ledger folds an observation as up to three events with the uids `r:{read_at}:{event}`.
    """

    ce_type: ClassVar[str] = "lifecycle.observed.v1"

    orgId: Uuid  # noqa: N815 - the sender's spelling, as in the webhook
    integrationId: Uuid  # noqa: N815
    tenant_id: TenantId | None = None
    read_at: Instant
    """The `Date` header of the first answer of the read: the clock of Genesys, not ours. Of an adoption the time of the
    vendor's file, of a release the time of the release."""
    installed: bool
    enabled: bool | None = None
    configuration: Json | None = None
    cause: str
    """Cause of the observation: `recheck` if the ledger asked for a read of the key, `adoption` or `release` of an
    operator's `lifecycle adopt`, else `drift`. Changes nothing."""
    source: Source = Source.RECONCILER

    @property
    def key(self) -> Key:
        """Returns the key of the observed integration."""
        return f"{self.orgId}:{self.integrationId}"


class Recheck(Record):
    """A request for the reconciler to read a key from Genesys; changes no state of the tenant."""

    ce_type: ClassVar[str] = "lifecycle.recheck.v1"

    key: Key
    reason: str
    at: Instant
