"""Which keys the reconciler owes a look before the next hour: re-checks, second looks, and a first sight.

Rule: a key is looked at for one reason at most once in `RECHECK_EVERY_US`, however often it is asked.
"""

from collections.abc import Collection, Mapping
from typing import Final

from schemas.tenant import Stage
from schemas.values import Key
from services.core.reconcile.reconcile import Memory, ReconcileRules, Tenants, is_asked

RECHECK_EVERY_US: Final = 300_000_000
"""A key is asked about at most once in 5 minutes."""
SETTLE_US: Final = 2_000_000
"""A `Date` has whole seconds: read sooner, an observation could be ordered before the event that asked for it."""


def due(tenants: Tenants, memory: Memory, looked: Mapping[Key, int], rules: ReconcileRules) -> frozenset[Key]:
    """Keys to read again now.

    Args:
        tenants: The view.
        memory: First sights that wait for their second.
        looked: When this process last looked at a key, microseconds UTC.
        rules: The clock and the second look.
    """
    again_us = min(RECHECK_EVERY_US, rules.second_look_us)
    asked = {
        key
        for key, tenant in tenants.items()
        if is_asked(tenant)
        and rules.now_us - tenant.updated_at >= SETTLE_US
        and rules.now_us - looked.get(key, 0) >= RECHECK_EVERY_US
    }
    second = {
        key
        for key, sight in memory.items()
        if sight.doubt is not None
        and rules.now_us - sight.doubt.since_us >= rules.second_look_us
        and rules.now_us - looked.get(key, 0) >= again_us
    }
    return frozenset(asked | second)


def unseen(tenants: Tenants, memory: Memory, sighted: Collection[Key]) -> frozenset[Key]:
    """Active keys that Genesys has not shown us yet: without a sight of them, their absence will never count."""
    return frozenset(
        key
        for key, tenant in tenants.items()
        if tenant.stage is Stage.ACTIVE and tenant.installed and key not in sighted and not _seen(memory, key)
    )


def _seen(memory: Memory, key: Key) -> bool:
    return key in memory and memory[key].seen_by is not None
