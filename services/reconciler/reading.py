"""Asks Genesys about many organisations at once and returns whole readings, or why there is none.

Rule: one organisation's trouble is its own. A client, and with it its token, lives as long as the credentials do.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from schemas.genesys import Integration, Organisation, Reading
from schemas.tenant import Tenant
from schemas.values import Json, Key
from services.adapters.genesys import Genesys, NoInformation, hosts_for
from services.adapters.settings import Settings
from services.core.reconcile import questions

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
        self._clients: dict[str, Genesys] = {}
        self._gate = asyncio.Semaphore(ORGS_AT_ONCE)

    async def close(self) -> None:
        """Let every connection go."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def read(
        self, organisation: Organisation, tenants: Mapping[Key, Tenant], keys: Collection[Key] | None
    ) -> Reading | str:
        """Read one organisation whole: the listing, what is missing in it by id, and the configurations.

        Returns:
            A complete reading, or why there is none. A single integration that gave no answer is left out of it.
        """
        async with self._gate:
            try:
                client = await self._client(organisation)
                listing = await client.listing()
            except NoInformation as none:
                return none.reason
            missing, present = questions(listing, organisation, tenants, keys)
            found, absent = await _asked_by_id(client, missing)
            configurations = await _configurations(client, present)
        everything = {**listing.integrations, **found}
        return Reading(
            listing.org_id, listing.client_id, listing.read_at_us, everything, frozenset(absent), configurations
        )

    async def listed(self, organisation: Organisation) -> Reading | str:
        """Read the listing alone: enough to have seen somebody."""
        async with self._gate:
            try:
                return await (await self._client(organisation)).listing()
            except NoInformation as none:
                return none.reason

    async def _client(self, organisation: Organisation) -> Genesys:
        known = self._clients.get(organisation.org_id)
        if known is not None and known.organisation == organisation:
            return known
        hosts = hosts_for(organisation, self._settings.genesys_login_url, self._settings.genesys_api_url)
        fresh = self._clients[organisation.org_id] = Genesys(organisation, hosts, now_us=self._now_us)
        if known is not None:
            await known.close()
        return fresh


async def _asked_by_id(client: Genesys, ids: list[str]) -> tuple[dict[str, Integration], list[str]]:
    found, absent = {}, []
    for identity in ids:
        try:
            entity = await client.integration(identity)
        except NoInformation:
            continue
        if entity is None:
            absent.append(identity)
        elif entity.id == identity:
            found[identity] = entity
    return found, absent


async def _configurations(client: Genesys, ids: list[str]) -> dict[str, Json]:
    found = {}
    for identity in ids:
        try:
            found[identity] = await client.configuration(identity)
        except NoInformation:
            continue
    return found
