"""Counts the tenants that have stood at a step for long, for the metric that an alert watches.

Rule: the registry is counted, not this worker's sagas, so every worker shows the same number and a board takes the
greatest.
"""

import asyncio
from typing import Final

from services.adapters.process import metrics
from services.adapters.registry.registry import Registry, RegistryAway

_EVERY_S: Final = 10.0


async def watch(registry: Registry, unwell_s: float) -> None:
    """Sets `lifecycle_saga_unwell` every ten seconds, until cancelled; a step that has none any more is set to 0."""
    known: set[str] = set()
    while True:
        try:
            found = await registry.unwell(unwell_s)
        except RegistryAway:
            found = None  # the numbers stay as they were; that the registry is away is a metric of its own
        if found is not None:
            for step in known | found.keys():
                metrics.SAGA_UNWELL.labels(step).set(found.get(step, 0))
            known |= found.keys()
        await asyncio.sleep(_EVERY_S)
