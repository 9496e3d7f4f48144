"""Unwell tenants: tenants in need of a person, judged by the public view.

Rule: a wait makes a tenant unwell after 15 minutes. The provisioner publishes the reason `waiting_for:STEP` at this
age; shorter waits have the reasons of `SHORT_WAITS` and are judged by the age of the record.
"""

from typing import Final

from schemas.tenant import Stage, Tenant

UNWELL_AFTER_US: Final = 15 * 60 * 1_000_000
"""A shorter wait for an outside system is normal; after this time the tenant is unwell."""

WAITING_FOR: Final = "waiting_for:"
"""Start of the reason of a tenant after a wait of `UNWELL_AFTER_US`; the name of the step follows."""

GRACE: Final = "grace"
"""Reason of a teardown before the first step, or during the `destroy_after` of a step: an intended wait, not unwell."""

REMOVAL_BRAKED: Final = "removal_braked"
"""Reason of a teardown before its first delete: the brake on removals waits for an operator."""

REMOVAL_REFUSED: Final = "removal_refused"
"""Reason of a braked teardown that an operator has refused."""

GENESYS_SAYS_INSTALLED: Final = "genesys_says_installed"
"""Reason of a teardown before its first delete: Genesys was asked, and has the integration."""

GENESYS_UNREAD: Final = "genesys_unread"
"""Reason of a teardown before its first delete: Genesys must confirm the removal, and gave no information."""

HELD_REMOVALS: Final = (REMOVAL_BRAKED, REMOVAL_REFUSED, GENESYS_SAYS_INSTALLED, GENESYS_UNREAD)
"""Reasons of teardowns that have not begun to destroy: nothing goes on by itself, and a reinstall ends the wait."""

SHORT_WAITS: Final = frozenset({
    "retrying", "system_away", "system_refuses", "compensating", "restoring", "former_life",
})  # fmt: skip
"""Reasons of waits that may end within seconds; a record with such a reason is unwell only by age."""

_FAILED: Final = frozenset({Stage.DEPROVISIONING_FAILED, Stage.PROVISIONING_ROLLED_BACK})


def is_unwell(tenant: Tenant, now_us: int) -> bool:
    """True if the tenant failed, waits too long, or has a reason which only a person or an outside system can end.

    Args:
        tenant: The record of the public view.
        now_us: The present time, microseconds UTC.
    """
    if tenant.stage in _FAILED:
        return True
    if tenant.stage in {None, Stage.DEPROVISIONED} or tenant.reason in {None, "", GRACE}:
        return False
    return tenant.reason not in SHORT_WAITS or now_us - tenant.updated_at >= UNWELL_AFTER_US


def is_waiting(tenant: Tenant, now_us: int) -> bool:
    """True if the tenant waits and is not unwell yet.

    Args:
        tenant: The record of the public view.
        now_us: The present time, microseconds UTC.
    """
    settled = tenant.stage in {None, Stage.DEPROVISIONED}
    return not settled and tenant.reason in SHORT_WAITS and not is_unwell(tenant, now_us)
