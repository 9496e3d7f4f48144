"""Reads many organisations from Genesys at once; each gives a complete reading or the reason for none.

Rule: trouble of one organisation does not touch the rest, and an odd answer about one integration costs this
integration alone (docs/decisions/0025). A client is kept, with the access token, while the credentials are unchanged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from schemas.genesys import Organisation, Reading
from schemas.tenant import Tenant
from schemas.values import Key
from services.adapters.genesys.answers import NoInformation, ServerTrouble
from services.adapters.genesys.audit_queries import AuditReading, read_audits
from services.adapters.genesys.client import GenesysClient, connections, hosts_for
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.reconcile import ids_to_read

T = TypeVar("T")

TROUBLES_MAX: Final = 3
"""Answers of a server in trouble, in a row, after which a run stops asking about the organisation."""
ORGS_AT_ONCE: Final = 4
"""Organisations read at the same time: enough to hide latency, few enough to spare the API. For audits the same number
again, so that a listing never waits for audits."""


class Readers:
    """The API clients of all organisations, for one event loop."""

    def __init__(self, settings: ReconcilerSettings, now_us: Callable[[], int]) -> None:
        """Opens the HTTP connection pool; no request is sent yet.

        Args:
            settings: Environment; may name hosts in place of the regions' hosts.
            now_us: Our clock, microseconds UTC.
        """
        self._settings = settings
        self._now_us = now_us
        self._http = connections()
        self._clients: dict[str, GenesysClient] = {}
        self._gate = asyncio.Semaphore(ORGS_AT_ONCE)
        self._audit_gate = asyncio.Semaphore(ORGS_AT_ONCE)

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.aclose()

    def forget(self, org_ids: Collection[str]) -> None:
        """Drops the clients of organisations without a file, with credentials and tokens."""
        for org_id in org_ids:
            self._clients.pop(org_id, None)

    async def read(
        self, organisation: Organisation, tenants: Mapping[Key, Tenant], keys: Collection[Key] | None
    ) -> Reading | NoInformation:
        """Reads one organisation: the listing, then unlisted integrations by id, then the configurations.

        Args:
            organisation: The organisation's file.
            tenants: The view of the tenants.
            keys: Read these keys alone; None for all.

        Returns:
            A complete reading, or the reason for none. Integrations without an answer are named in `unread` of the
            reading.
        """
        async with self._gate:
            try:
                client = self._client(organisation)
                listing = await client.listing()
            except NoInformation as none:
                return none
            missing, present = ids_to_read(listing, organisation, tenants, keys)
            asked, unanswered = await _read_each(missing, client.integration)
            found = {identity: entity for identity, entity in asked.items() if entity is not None}
            configurations, unread = await _read_each([*present, *found], client.configuration)
        return replace(
            listing,
            integrations={**listing.integrations, **found},
            # Answered, and answered with None: Genesys' own 404. An id without an answer is not absent.
            absent=frozenset(asked.keys() - found.keys()),
            configurations=configurations,
            unread={**unanswered, **unread},
        )

    async def listed(self, organisation: Organisation) -> Reading | NoInformation:
        """Reads the listing alone, enough for a first sight of integrations.

        Returns:
            A reading without configurations, or the reason for none.
        """
        async with self._gate:
            try:
                return await self._client(organisation).listing()
            except NoInformation as none:
                return none

    async def audits(self, organisation: Organisation, span: tuple[int, int]) -> AuditReading:
        """Reads the audits of a time span.

        Args:
            organisation: The organisation's file.
            span: Begin and end, microseconds UTC.

        Raises:
            NoInformation: the audits could not be read, or not whole; `NotPermitted` and `TooMany` say why.
        """
        async with self._audit_gate:
            return await read_audits(self._client(organisation).session, *span, self._now_us)

    def _client(self, organisation: Organisation) -> GenesysClient:
        client = self._clients.get(organisation.org_id)
        # A changed file means new credentials: the token of the former client must not be used any more.
        if client is not None and client.organisation == organisation:
            return client
        hosts = hosts_for(organisation, self._settings.genesys_login_url, self._settings.genesys_api_url)
        client = GenesysClient(organisation, hosts, self._http, now_us=self._now_us)
        self._clients[organisation.org_id] = client
        return client


async def _read_each(ids: list[str], ask: Callable[[str], Awaitable[T]]) -> tuple[dict[str, T], dict[str, str]]:
    """Reads integrations one after another; stops after `TROUBLES_MAX` answers of a server in trouble in a row.

    Args:
        ids: Integration ids.
        ask: Sends the request for one id; raises NoInformation or ServerTrouble.

    Returns:
        The answers by id, and the reasons of the ids without an answer.
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
            # After ServerTrouble on purpose, a subclass: here the server is well, and only this answer is unusable.
            unread[identity] = none.reason
            troubles = 0
    return found, unread
