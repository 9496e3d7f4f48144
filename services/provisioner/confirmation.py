"""Asks Genesys if the integration of a removal is really gone, before the first delete.

Rules:
- A question takes at most `_QUESTION_S`, and holds no slot of an outside system. An organisation has few questions at
  once, and the sagas beyond come again: a Genesys that hangs holds up no other organisation.
- After trouble of an organisation's API its next removals are not asked for half a minute. They ask later: a question
  that was not sent is no answer. An odd answer about an integration costs its own question alone.
- A spent budget of the token is no trouble of Genesys: the question is put off.
- A 404 counts only once the token was proved to be of this organisation.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import httpx2

from schemas.genesys import Organisation
from services.adapters.genesys.answers import NoInformation, ServerTrouble, Unanswered
from services.adapters.genesys.client import GenesysClient, connections, hosts_for
from services.adapters.genesys.organisations import load_one
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.process.settings import GenesysSettings
from services.core.saga.removal import GenesysSays, genesys_says

_QUESTION_S: Final = 8.0
"""Longest question, token included: about half of a lease, though leases are renewed meanwhile."""
_AT_ONCE: Final = 4
"""Questions about one organisation at the same time."""
_SILENCE_S: Final = 30.0
"""Seconds without a question to an organisation after trouble of its API."""
_BUDGET_WAIT_S: Final = 3.0
"""Longest wait for the token's budget, and for what a refusal asks for: a question needs the rest of its time."""


class NotAsked(StrEnum):
    """The reason for which Genesys was not asked now, or has put the question off. No answer, and no consent."""

    CROWDED = "crowded"
    """The organisation has enough questions under way: ask again in a moment."""
    LATER = "later"
    """The organisation's API had trouble just now, or the token's budget is spent."""


@dataclass(slots=True)
class _Asked:
    """An organisation with questions.

    Attributes:
        client: The client with the organisation's token; None while the file cannot be used.
        proved: The client whose token was proved to be of the organisation. Not a mark of this record: a proof of
            former credentials, asked for before the file changed, may come after the change.
        silent_until_s: Time of the event loop before which no question is sent.
        under_way: Questions without an answer yet.
    """

    client: GenesysClient | None = None
    proved: GenesysClient | None = None
    silent_until_s: float = 0.0
    under_way: int = 0


class Confirmation:
    """The questions of one worker, with a client and a token for each organisation. Use from one event loop."""

    def __init__(self, settings: GenesysSettings, now_us: Callable[[], int], log: Logger) -> None:
        """Prepares; nothing is opened before the first question.

        Args:
            settings: Folder of the organisation files, and the hosts in place of the regions' hosts.
            now_us: Our clock, microseconds UTC.
            log: Logger of the service.
        """
        self._settings, self._now_us, self._log = settings, now_us, log
        self._http: httpx2.AsyncClient | None = None
        self._asked: dict[str, _Asked] = {}

    async def close(self) -> None:
        """Closes every connection."""
        if self._http is not None:
            await self._http.aclose()

    async def ask(self, key: str) -> GenesysSays | NotAsked:
        """Asks for the integration of a key."""
        org_id, _, identity = key.partition(":")
        asked = self._asked.setdefault(org_id, _Asked())
        if asked.under_way >= _AT_ONCE:
            return NotAsked.CROWDED
        asked.under_way += 1
        try:
            says, why = await self._question(asked, org_id, identity)
        finally:
            asked.under_way -= 1
        if isinstance(says, GenesysSays):
            metrics.PROVISIONER_CONFIRMATIONS.labels(says).inc()
        if says is GenesysSays.INSTALLED:
            self._log.error("removal contradicted", key=key)
        elif says is not GenesysSays.GONE:
            self._log.warning("removal not confirmed", key=key, why=why)
        return says

    async def _question(self, asked: _Asked, org_id: str, identity: str) -> tuple[GenesysSays | NotAsked, str]:
        """Returns the answer, or the reason for no answer yet; and the reason for no information, in words."""
        loop = asyncio.get_running_loop()
        organisation = await asyncio.to_thread(load_one, self._settings.orgs_dir, org_id)
        if isinstance(organisation, str):
            asked.client = None
            return GenesysSays.UNREAD, organisation
        if loop.time() < asked.silent_until_s:
            return NotAsked.LATER, "not asked, after a question without an answer"
        try:
            async with asyncio.timeout(_QUESTION_S):
                client = self._client(asked, organisation)
                if asked.proved is not client:
                    await client.own_organisation()
                    asked.proved = client
                says = genesys_says(await client.integration(identity))
        except NoInformation as error:
            if error.sort is Unanswered.RATE_LIMITED:
                return NotAsked.LATER, error.reason
            if isinstance(error, ServerTrouble):
                asked.silent_until_s = loop.time() + _SILENCE_S
            return GenesysSays.UNREAD, error.reason
        except TimeoutError:
            asked.silent_until_s = loop.time() + _SILENCE_S
            return GenesysSays.UNREAD, "no answer in time"
        return says, "a state that this release does not know" if says is GenesysSays.UNREAD else ""

    def _client(self, asked: _Asked, organisation: Organisation) -> GenesysClient:
        # A changed file means new credentials: the token of the former client must not be used any more.
        if asked.client is None or asked.client.organisation != organisation:
            hosts = hosts_for(organisation, self._settings.genesys_login_url, self._settings.genesys_api_url)
            self._http = self._http or connections(_QUESTION_S)
            asked.client = GenesysClient(
                organisation, hosts, self._http, now_us=self._now_us, wait_max_s=_BUDGET_WAIT_S
            )
        return asked.client
