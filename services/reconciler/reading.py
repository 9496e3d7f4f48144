"""Asks Genesys about many organisations at once and returns whole readings, or why there is none.

Rule: one organisation's trouble is its own. A client, and with it its token, lives as long as the credentials do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from schemas.genesys import Organisation, Reading
from schemas.tenant import Tenant
from schemas.values import Key
from services.adapters.genesys import Genesys, NoInformation, connections, hosts_for
from services.adapters.settings import Settings
from services.core.reconcile import questions

T = TypeVar("T")

FAILURES_MAX: Final = 3
ORGS_AT_ONCE: Final = 4
"""Organisations read at the same time: enough to hide latency, few enough to be nobody's burden."""


class Readers:
    """The clients of all organisations."""

    def __init__(self, settings: Settings, now_us: Callable[[], int]) -> None:
        """Prepare.

        Args:
            settings: Hosts that override the regions'.
            now_us: Our clock.
        """
        self._settings = settings
        self._now_us = now_us
        self._http = connections()
        self._clients: dict[str, Genesys] = {}
        self._gate = asyncio.Semaphore(ORGS_AT_ONCE)

    async def close(self) -> None:
        """Let every connection go."""
        await self._http.aclose()

    async def read(
        self, organisation: Organisation, tenants: Mapping[Key, Tenant], keys: Collection[Key] | None
    ) -> Reading | str:
        """Read one organisation whole: the listing, what is missing in it by id, and the configurations.

        Returns:
            A complete reading, or why there is none. A single integration that gave no answer is left out of it.
        """
        async with self._gate:
            try:
                client = self._client(organisation)
                listing = await client.listing()
            except NoInformation as none:
                return none.reason
            missing, present = questions(listing, organisation, tenants, keys)
            asked = await _each(missing, client.integration)
            configurations = await _each(present, client.configuration)
        found = {identity: entity for identity, entity in asked.items() if entity is not None}
        return replace(
            listing,
            integrations={**listing.integrations, **found},
            absent=frozenset(asked.keys() - found.keys()),
            configurations=configurations,
        )

    async def listed(self, organisation: Organisation) -> Reading | str:
        """Read the listing alone: enough to have seen somebody."""
        async with self._gate:
            try:
                return await self._client(organisation).listing()
            except NoInformation as none:
                return none.reason

    def _client(self, organisation: Organisation) -> Genesys:
        known = self._clients.get(organisation.org_id)
        if known is not None and known.organisation == organisation:
            return known
        hosts = hosts_for(organisation, self._settings.genesys_login_url, self._settings.genesys_api_url)
        known = self._clients[organisation.org_id] = Genesys(organisation, hosts, self._http, now_us=self._now_us)
        return known


async def _each(ids: list[str], ask: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """The answers there were; who fails `FAILURES_MAX` times in a row is not asked on."""
    found: dict[str, T] = {}
    failures = 0
    for identity in ids:
        try:
            found[identity] = await ask(identity)
            failures = 0
        except NoInformation:
            failures += 1
            if failures == FAILURES_MAX:
                break
    return found
