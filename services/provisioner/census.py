"""Counts the sagas, unwell tenants, held removals and the outbox of the registry, for metrics that operators watch.

Rule: a count covers the whole registry and not the sagas of this worker. Every worker shows an equal number:
a dashboard takes the maximum over workers, never the sum.
"""

import asyncio
from typing import Final

from services.adapters.process import clock, metrics
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import Census, Counted, RemovalCounts, RemovalRules, Unconfirmed
from services.core.saga.why import SagaWhy

_EVERY_S: Final = 10.0
_NONE: Final = Counted()
_WITHOUT_AGE: Final = frozenset({SagaWhy.REST, SagaWhy.GRACE})
"""Intended positions: their age says nothing."""


class CensusWatch:
    """Sets the gauges of the whole registry."""

    def __init__(self, registry: Registry, unwell_s: float, rules: RemovalRules, log: Logger) -> None:
        """Prepares the watch.

        Args:
            registry: Started registry.
            unwell_s: Seconds at one step after which a tenant counts as unwell.
            rules: Limits of the brake on removals.
            log: Logger of the service.
        """
        self._registry, self._unwell_s, self._rules, self._log = registry, unwell_s, rules, log
        self._unwell_steps: set[str] = set()
        self._failed = False

    async def run(self) -> None:
        """Takes a census every ten seconds until cancelled."""
        while True:
            await self.take()
            await asyncio.sleep(_EVERY_S)

    async def take(self) -> None:
        """Takes a census. After a failure the gauges keep their values, and their age is in a metric of its own.

        The registry may answer every other statement meanwhile: a census of a large registry is its longest statement.
        """
        try:
            found = await self._registry.census(self._unwell_s)
            removals = await self._registry.removal_counts(self._rules)
        except RegistryAway as error:
            if not self._failed:
                self._log.warning("census failed", why=str(error))
            self._failed = True
            return
        if self._failed:
            self._log.info("census succeeds again")
        self._failed = False
        _show(found)
        _show_removals(removals)
        # A step without unwell tenants is absent from the result: its gauge must go back to 0.
        self._unwell_steps |= found.unwell.keys()
        for step in self._unwell_steps:
            metrics.PROVISIONER_UNWELL.labels(step).set(found.unwell.get(step, 0))
        metrics.PROVISIONER_CENSUS_AT.set(clock.now_us() / 1_000_000)


def _show(found: Census) -> None:
    for why in SagaWhy:
        counted = found.sagas.get(why, _NONE)
        metrics.PROVISIONER_SAGAS.labels(why).set(counted.number)
        if why not in _WITHOUT_AGE:
            metrics.PROVISIONER_OLDEST_SAGA_S.labels(why).set(counted.oldest_s)
    metrics.PROVISIONER_OLDEST_DUE_AT.set(found.oldest_due_s)
    metrics.PROVISIONER_OUTBOX_RECORDS.set(found.outbox.number)
    metrics.PROVISIONER_OUTBOX_OLDEST_S.set(found.outbox.oldest_s)


def _show_removals(found: RemovalCounts) -> None:
    metrics.PROVISIONER_REMOVALS_COUNTED.set(found.counted)
    metrics.PROVISIONER_REMOVALS_ALLOWED.set(found.limit)
    unconfirmed = {why.value: found.unconfirmed.get(why, 0) for why in Unconfirmed}
    for why, number in ({"brake": found.held, "refused": found.refused} | unconfirmed).items():
        metrics.PROVISIONER_REMOVALS_HELD.labels(why).set(number)
