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
from services.adapters.genesys.answers import NoInformation, ServerTrouble
from services.adapters.genesys.client import GenesysClient, connections, hosts_for
from services.adapters.process.settings import Settings
from services.core.reconcile.reconcile import questions

T = TypeVar("T")

TROUBLES_MAX: Final = 3
"""So often in a row may the server be in trouble before an organisation is asked no more in this run."""
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
        self._clients: dict[str, GenesysClient] = {}
        self._gate = asyncio.Semaphore(ORGS_AT_ONCE)

    async def close(self) -> None:
        """Let every connection go."""
        await self._http.aclose()

    async def read(
        self, organisation: Organisation, tenants: Mapping[Key, Tenant], keys: Collection[Key] | None
    ) -> Reading | str:
        """Read one organisation whole: the listing, what is missing in it by id, and the configurations.

        Returns:
            A complete reading, or why there is none. An integration that gave no answer is named in it.
        """
        async with self._gate:
            try:
                client = self._client(organisation)
                listing = await client.listing()
            except NoInformation as none:
                return none.reason
            missing, present = questions(listing, organisation, tenants, keys)
            asked, silent = await _each(missing, client.integration)
            found = {identity: entity for identity, entity in asked.items() if entity is not None}
            configurations, odd = await _each([*present, *found], client.configuration)
        return replace(
            listing,
            integrations={**listing.integrations, **found},
            absent=frozenset(asked.keys() - found.keys()),
            configurations=configurations,
            unread={**silent, **odd},
        )

    async def listed(self, organisation: Organisation) -> Reading | str:
        """Read the listing alone: enough to have seen somebody."""
        async with self._gate:
            try:
                return await self._client(organisation).listing()
            except NoInformation as none:
                return none.reason

    def _client(self, organisation: Organisation) -> GenesysClient:
        known = self._clients.get(organisation.org_id)
        if known is not None and known.organisation == organisation:
            return known
        hosts = hosts_for(organisation, self._settings.genesys_login_url, self._settings.genesys_api_url)
        known = self._clients[organisation.org_id] = GenesysClient(organisation, hosts, self._http, now_us=self._now_us)
        return known


async def _each(ids: list[str], ask: Callable[[str], Awaitable[T]]) -> tuple[dict[str, T], dict[str, str]]:
    """Asks about one after another; an odd answer costs its own id alone, and a server in trouble is left in peace.

    Returns:
        The answers there were, and why there is none for the others.
    """
    found: dict[str, T] = {}
    unread: dict[str, str] = {}
    troubles = 0
    for number, identity in enumerate(ids, 1):
        try:
            found[identity] = await ask(identity)
            troubles = 0
        except ServerTrouble as trouble:
            unread[identity] = trouble.reason
            troubles += 1
            if troubles == TROUBLES_MAX:
                unread |= dict.fromkeys(ids[number:], f"not asked, after {TROUBLES_MAX} times {trouble.reason}")
                break
        except NoInformation as none:
            unread[identity] = none.reason
            troubles = 0
    return found, unread
