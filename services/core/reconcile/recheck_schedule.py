"""Schedule of the looks between two hourly runs: re-checks, second looks, and first sights.

Rule: a re-check of a key runs at most once in `RECHECK_EVERY_US`, however often a re-check is asked for. A flag stays
until an observation ends the flag: without the limit, a key without an answer of Genesys would be read every second.

A key that only a hint has named (`is_told` is False) may be an install, the integration of somebody else, or invented.
The listing tells, so such keys cost a listing per organisation and `HINTED_EVERY_US` at most. A listing may be older
than an install, so a second one follows 5 minutes later; then the hourly run alone looks for the key, as for every key
that is not installed.
"""

from collections.abc import Collection, Mapping
from typing import Final

from schemas.tenant import Stage
from schemas.values import Key
from services.core.reconcile.observed_state import awaits_recheck, is_told
from services.core.reconcile.reconcile import Memory, ReconcileRules, Tenants

RECHECK_EVERY_US: Final = 300_000_000
"""Microseconds between two re-checks of a key: 5 minutes."""
HINTED_EVERY_US: Final = 10_000_000
"""Microseconds between two looks of an organisation for keys that only a hint has named: 10 s."""
ABSENT_LIFE_US: Final = 2 * RECHECK_EVERY_US
"""Microseconds after the newest change of the view in which a key that is not installed is looked for early: room for
two looks. The hourly run goes on to look for the key."""
SETTLE_US: Final = 2_000_000
"""Microseconds from a change of the view to a re-check. The time of an observation is a `Date` header, in whole
seconds: an earlier read could be ordered before the event that asked for the re-check."""
SETTLE_MAX_US: Final = 10_000_000
"""Microseconds after which an owed re-check runs although the view goes on changing: changes that follow each other
within `SETTLE_US` would put the read off for as long as they come. What such a read is too old for stays owed."""


def due(
    tenants: Tenants, memory: Memory, looked: Mapping[Key, int], owed: Mapping[Key, int], rules: ReconcileRules
) -> frozenset[Key]:
    """Returns the keys to read again now: owed re-checks, and claims due for the second sight.

    Args:
        tenants: The view.
        memory: The memory of earlier runs, with the waiting claims.
        looked: Key to the time of this process' last look at the key, microseconds UTC.
        owed: Key to the time when this process first saw that a re-check is owed, microseconds UTC.
        rules: Clock and second look.
    """
    # The demo sets a second look shorter than 5 minutes; the limit per key must not delay such a look.
    again_us = min(RECHECK_EVERY_US, rules.second_look_us)
    asked = {
        key
        for key, tenant in tenants.items()
        if awaits_recheck(tenant)
        and (
            rules.now_us - tenant.updated_at >= SETTLE_US or rules.now_us - owed.get(key, rules.now_us) >= SETTLE_MAX_US
        )
        and rules.now_us - looked.get(key, 0) >= RECHECK_EVERY_US
    }
    # Without these limits a flood of invented keys would read a listing every second, and a key that no credentials
    # have seen would be read for ever: its absence counts for nothing, so no observation answers its re-check.
    rested = {_org(key) for key, at_us in looked.items() if rules.now_us - at_us < HINTED_EVERY_US}
    asked = {
        key
        for key in asked
        if tenants[key].installed
        or tenants[key].flags
        or (
            rules.now_us - tenants[key].updated_at < ABSENT_LIFE_US
            and (is_told(tenants[key]) or _org(key) not in rested)
        )
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
    """Returns the active keys not yet seen in any listing.

    An absence counts only for credentials with an earlier sight of the integration (docs/decisions/0001). Before the
    first sight no absence of the key can count.

    Args:
        tenants: The view.
        memory: The memory of earlier runs.
        sighted: Keys already looked for by this process; each key is looked for once.
    """
    return frozenset(
        key
        for key, tenant in tenants.items()
        if tenant.stage is Stage.ACTIVE and tenant.installed and key not in sighted and not _seen(memory, key)
    )


def _org(key: Key) -> str:
    return key.partition(":")[0]


def _seen(memory: Memory, key: Key) -> bool:
    return key in memory and memory[key].seen_by is not None
