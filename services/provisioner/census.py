"""Counts the sagas, the unwell tenants and the outbox of the registry, for metrics on which operators alert.

Rule: a count covers the whole registry and not the sagas of this worker. Every worker shows an equal number:
a dashboard takes the maximum over workers, never the sum.
"""

import asyncio
from typing import Final

from services.adapters.process import metrics
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import Census, Counted
from services.core.saga.why import SagaWhy

_EVERY_S: Final = 10.0
_NONE: Final = Counted()
_WITHOUT_AGE: Final = frozenset({SagaWhy.REST, SagaWhy.GRACE})
"""Intended positions: their age says nothing."""


async def watch(registry: Registry, unwell_s: float) -> None:
    """Sets the gauges of the whole registry every ten seconds until cancelled.

    Args:
        registry: Started registry.
        unwell_s: Seconds at one step after which a tenant counts as unwell.
    """
    known: set[str] = set()
    while True:
        try:
            found = await registry.census(unwell_s)
        except RegistryAway:
            found = None  # the gauges keep their values; `lifecycle_provisioner_registry_up` shows the outage
        if found is not None:
            _show(found)
            # A step without unwell tenants is absent from the result: its gauge must go back to 0.
            for step in known | found.unwell.keys():
                metrics.PROVISIONER_UNWELL.labels(step).set(found.unwell.get(step, 0))
            known |= found.unwell.keys()
        await asyncio.sleep(_EVERY_S)


def _show(found: Census) -> None:
    for why in SagaWhy:
        counted = found.sagas.get(why, _NONE)
        at_rest = found.at_rest if why is SagaWhy.REST else 0
        metrics.PROVISIONER_SAGAS.labels(why).set(counted.number + at_rest)
        if why not in _WITHOUT_AGE:
            metrics.PROVISIONER_OLDEST_SAGA_S.labels(why).set(counted.oldest_s)
    metrics.PROVISIONER_OUTBOX_RECORDS.set(found.outbox.number)
    metrics.PROVISIONER_OUTBOX_OLDEST_S.set(found.outbox.oldest_s)
