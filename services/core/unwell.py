"""Unwell tenants: those that somebody may have to help, as the public view tells them.

Rule: a wait counts once it has lasted 15 minutes. The provisioner says so itself with
`waiting_for:SYSTEM`; shorter waits have other reasons and are judged by the age of the record.
"""

from typing import Final

from schemas.tenant import Stage, Tenant

UNWELL_AFTER_US: Final = 15 * 60 * 1_000_000
"""A wait for an outside system is a matter of course for so long, and unwell from then on."""

WAITING_FOR: Final = "waiting_for:"
"""Begins the reason of a tenant that has waited for a system for `UNWELL_AFTER_US`; the system's name follows."""

GRACE: Final = "grace"
"""Reason of a teardown that waits for its `destroy_after`: as it should be."""

SHORT_WAITS: Final = frozenset({
    "retrying", "system_away", "system_refuses", "compensating", "restoring", "former_life",
})  # fmt: skip
"""Reasons of waits that may end within seconds."""

_FAILED: Final = frozenset({Stage.DEPROVISIONING_FAILED, Stage.PROVISIONING_ROLLED_BACK})


def is_unwell(tenant: Tenant, now_us: int) -> bool:
    """True if the tenant failed, waits too long, or keeps a reason that only a person or an outside system can end.

    Args:
        tenant: As the view has it.
        now_us: Microseconds UTC.
    """
    if tenant.stage in _FAILED:
        return True
    if tenant.stage in {None, Stage.DEPROVISIONED} or tenant.reason in {None, "", GRACE}:
        return False
    return tenant.reason not in SHORT_WAITS or now_us - tenant.updated_at >= UNWELL_AFTER_US


def is_waiting(tenant: Tenant, now_us: int) -> bool:
    """True if the tenant waits, and not for so long yet that it is unwell; arguments as of `is_unwell`."""
    settled = tenant.stage in {None, Stage.DEPROVISIONED}
    return not settled and tenant.reason in SHORT_WAITS and not is_unwell(tenant, now_us)
