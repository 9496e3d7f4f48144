"""The desired state of a key (`Desired`), for the provisioner, and the public view of a key (`Tenant`)."""

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import Field

from schemas.values import Instant, Json, Key, Record, TenantId


class Stage(StrEnum):
    """Stage of a tenant's lifecycle, in the words of the guide."""

    PENDING_INSTALL = "pending_install"
    ACTIVE = "active"
    DEPROVISIONING = "deprovisioning"
    DEPROVISIONED = "deprovisioned"
    DEPROVISIONING_FAILED = "deprovisioning_failed"
    PROVISIONING_ROLLED_BACK = "provisioning_rolled_back"


class Flag(StrEnum):
    """Reason why a tenant's state is provisional until an observation of Genesys confirms or corrects the state."""

    TIE = "tie"
    """Contradicting values at an equal time."""
    AMBIGUOUS = "ambiguous"
    """A delivery was a retry of either of two events."""
    CONFLICT = "conflict"
    """Different bodies under one uid."""
    STORM = "storm"
    """Too many events, configurations or bodies for the journal: the oldest were judged final early, or not kept."""


VERSION_MAX: Final = 2**63 - 1
"""Greatest 64-bit signed integer, the limit of PostgreSQL's `bigint` and of a packed row's version."""


class Desired(Record):
    """The newest desired state of a key. Records may be repeated or stale; keep the greatest `version`."""

    ce_type: ClassVar[str] = "lifecycle.desired.v1"

    key: Key
    version: int = Field(ge=0, le=VERSION_MAX)
    """The ledger row's version at the last publication for an event; a rewrite repeats this version."""
    installed: bool
    enabled: bool
    configuration: Json
    tenant_id: TenantId | None
    """The tenantId of the newest `installed` with a tenantId; null if no `installed` named a tenantId."""
    installed_at: Instant | None
    uninstalled_at: Instant | None
    received_at: Instant | None = None
    """Log time of the record in `lifecycle.received` that caused this version; a rewrite repeats this time. Null in
    records from before this field."""
    remove_after_s: int | None = Field(default=None, ge=0)
    """Seconds that a teardown waits before the first step, from the moment at which the teardown is due: audits alone
    assert the removal. Null for any other removal, and while installed."""


class Tenant(Record):
    """The public view of a key, in a compacted topic. Records may be repeated or stale; keep the greatest `version`."""

    ce_type: ClassVar[str] = "lifecycle.tenant.v1"

    key: Key
    version: int
    """Sum of the versions of the two ledger rows behind the view."""
    tenant_id: TenantId | None
    """The bound tenantId. Without a binding: the tenantId of the newest `installed` while the key is installed, and the
    former binding afterwards. Null while the named tenantId is bound to a different organisation."""
    claimed_tenant_id: TenantId | None = None
    """The tenantId of the newest `installed`, if different from the bound tenantId; null if equal or uninstalled."""
    installed: bool | None
    """Null while neither an install nor an uninstall is known."""
    enabled: bool | None
    configuration: Json | None
    """The published names only."""
    configuration_mac: str | None
    """Keyed hash of the whole configuration, for comparison without access to the configuration."""
    stage: Stage | None
    reason: str | None
    """The reason why the tenant is not further, or needs attention; null without a reason."""
    flags: tuple[Flag, ...]
    revision: int
    """Revision of the newest published event; 0 before the first."""
    generation: int
    """Generation of the provisioner: 1, 2, 3 … per life; 0 before the first."""
    recheck_at: Instant | None
    """Time of a requested re-check without an answering observation; null if no re-check is open."""
    event_at: Instant | None = None
    """Log time of the newest record with a new event of the key; null before the first event, and in records from
    before this field. Neither a request for a re-check nor an outcome is an event."""
    updated_at: Instant
    """Log time of the newest record with a change of either row."""
