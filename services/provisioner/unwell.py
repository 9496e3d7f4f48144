"""Counts unwell tenants by step for the metric `lifecycle_saga_unwell`, on which operators alert.

Rule: the count covers the whole registry and not the sagas of this worker. Every worker shows an equal number:
a dashboard takes the maximum over workers, never the sum.
"""

import asyncio
from typing import Final

from services.adapters.process import metrics
from services.adapters.registry.registry import Registry, RegistryAway

_EVERY_S: Final = 10.0


async def watch(registry: Registry, unwell_s: float) -> None:
    """Sets `lifecycle_saga_unwell` every ten seconds until cancelled.

    Args:
        registry: Started registry.
        unwell_s: Seconds at one step after which a tenant counts as unwell.
    """
    known: set[str] = set()
    while True:
        try:
            found = await registry.unwell(unwell_s)
        except RegistryAway:
            found = None  # the gauges keep their values; `lifecycle_registry_up` shows the outage
        if found is not None:
            # A step without unwell tenants is absent from the result: its gauge must go back to 0.
            for step in known | found.keys():
                metrics.SAGA_UNWELL.labels(step).set(found.get(step, 0))
            known |= found.keys()
        await asyncio.sleep(_EVERY_S)
