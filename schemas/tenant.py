"""What should be (`Desired`), for the provisioner, and what is (`Tenant`), for everybody."""

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import Field

from schemas.values import Instant, Json, Key, Record, TenantId


class Stage(StrEnum):
    """Where a tenant stands; the guide's own words."""

    PENDING_INSTALL = "pending_install"
    ACTIVE = "active"
    DEPROVISIONING = "deprovisioning"
    DEPROVISIONED = "deprovisioned"
    DEPROVISIONING_FAILED = "deprovisioning_failed"
    PROVISIONING_ROLLED_BACK = "provisioning_rolled_back"


class Flag(StrEnum):
    """Why a tenant's state is provisional until Genesys, or an operator, was asked."""

    TIE = "tie"
    AMBIGUOUS = "ambiguous"
    CONFLICT = "conflict"
    STORM = "storm"


VERSION_MAX: Final = 2**63 - 1
"""What PostgreSQL and a row's head can hold."""


class Desired(Record):
    """The newest desired state of a key. Readers keep the greatest `version`."""

    ce_type: ClassVar[str] = "lifecycle.desired.v1"

    key: Key
    version: int = Field(ge=0, le=VERSION_MAX)
    """The version of the ledger row at which this was last published for an event."""
    installed: bool
    enabled: bool
    configuration: Json
    tenant_id: TenantId | None
    """As the newest `installed` named it; null when only observations without one are known."""
    installed_at: Instant | None
    uninstalled_at: Instant | None


class Tenant(Record):
    """The compacted public view of a key. Readers keep the greatest `version`."""

    ce_type: ClassVar[str] = "lifecycle.tenant.v1"

    key: Key
    version: int
    """The sum of the versions of the two ledger rows it is composed of."""
    tenant_id: TenantId | None
    """As it is bound; before anything is bound, as the newest `installed` named it. Null while that name is bound to
    another organisation."""
    claimed_tenant_id: TenantId | None = None
    """As the newest `installed` named it, where that is not the bound one; null where they agree."""
    installed: bool | None
    """Null while neither an install nor an uninstall is known."""
    enabled: bool | None
    configuration: Json | None
    """Published names only."""
    configuration_mac: str | None
    """Keyed hash of the whole configuration, for comparison without reading it."""
    stage: Stage | None
    reason: str | None
    flags: tuple[Flag, ...]
    revision: int
    """Of the newest event published; 0 before the first."""
    generation: int
    """The provisioner's: 1, 2, 3 … per life; 0 before the first."""
    recheck_at: Instant | None
    """A re-check asked and not yet answered by an observation."""
    updated_at: Instant
    """Log time of the record that changed it last."""
