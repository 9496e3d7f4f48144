"""Sends lifecycle webhooks as the guide says: signed, at least once, five retries with doubling waits.

Rule: a retry is the same event. It carries retry metadata, and where asked a timestamp of its own, which is what makes
receivers that trust timestamps see five events.
Source: the guide (headers, body, 3 s, `maxRetries` 5, `initialDelayMs` 1000, `backoffMultiplier` 2).
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx2

from schemas import webhook_sent
from schemas.webhook_sent import Sent
from services.adapters.process.clock import now_us
from services.adapters.process.logs import Logger
from services.adapters.secrets import keyring
from services.core.delivery.signature import sign

RETRIES: Final = 5
FIRST_WAIT_S: Final = 1.0
TIMEOUT_S: Final = 3.0
_AT_ONCE: Final = 100
_ENDPOINT: Final = "default"


class Webhooks:
    """Sends in the background, from one event loop."""

    def __init__(self, url: str, keyring_file: Path, log: Logger) -> None:
        self._url = url
        self._keyring_file = keyring_file
        self._log = log
        self._http = httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, events: list[Sent], *, restamp: bool) -> None:
        """Begin to tell some events of one integration, one after the other.

        Args:
            events: In this order.
            restamp: Every attempt carries its own `eventTimestamp`.
        """
        task = asyncio.create_task(self._tell_all(events, restamp=restamp))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Give up what is still being sent."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._http.aclose()

    async def _tell_all(self, events: list[Sent], *, restamp: bool) -> None:
        secret = keyring.raw(keyring.load(self._keyring_file).endpoints[_ENDPOINT].current.secret)
        for event in events:
            await self._tell(event, secret, restamp=restamp)

    async def _tell(self, told: Sent, secret: bytes, *, restamp: bool) -> None:
        for attempt in range(RETRIES + 1):
            if attempt:
                await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            async with self._room:
                answer = await self._attempt(replace(told, at_us=now_us()) if restamp else told, attempt, secret)
            if answer is not None and 200 <= answer < 300:
                return
        self._log.warning("webhook given up", event_type=told.event, key=f"{told.org_id}:{told.integration_id}")

    async def _attempt(self, told: Sent, attempt: int, secret: bytes) -> int | None:
        """The status of one attempt, None without an answer."""
        body = webhook_sent.body(told, attempt)
        headers = webhook_sent.headers(sign(secret, body), now_us())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return (await self._http.post(self._url, content=body, headers=headers)).status_code
        except (httpx2.HTTPError, TimeoutError):
            return None
