"""Sends lifecycle webhooks by the rules of the guide: signed, at least once, five retries with doubling waits.

Rule: a retry is a further delivery of one event, with retry metadata. With `restamp` every delivery also has its own
`eventTimestamp`; a receiver that identifies events by timestamp would take the deliveries for several events.
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
    """Sends webhooks in background tasks. For one event loop."""

    def __init__(self, url: str, keyring_file: Path, log: Logger) -> None:
        self._url = url
        self._keyring_file = keyring_file
        self._log = log
        self._http = httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._sending: set[asyncio.Task[None]] = set()

    def send(self, events: list[Sent], *, restamp: bool) -> None:
        """Starts to send the events of an integration in sequence; returns at once.

        Args:
            events: The events, in the order of sending. An event begins after the last attempt of the event before.
            restamp: True gives every attempt an `eventTimestamp` of its own.
        """
        task = asyncio.create_task(self._send_all(events, restamp=restamp))
        # The event loop keeps only weak references to tasks; without the set a task could be collected while it runs.
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Cancels the webhooks in progress and closes all connections."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._http.aclose()

    async def _send_all(self, events: list[Sent], *, restamp: bool) -> None:
        # Read for each call: the keyring file may change while the simulator runs.
        secret = keyring.raw(keyring.load(self._keyring_file).endpoints[_ENDPOINT].current.secret)
        for event in events:
            await self._send_with_retries(event, secret, restamp=restamp)

    async def _send_with_retries(self, event: Sent, secret: bytes, *, restamp: bool) -> None:
        """Sends an event until an attempt gets a 2xx; logs a warning after the last attempt."""
        for attempt in range(RETRIES + 1):
            if attempt:
                await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
            async with self._slots:
                answer = await self._attempt(replace(event, at_us=now_us()) if restamp else event, attempt, secret)
            if answer is not None and 200 <= answer < 300:
                return
        self._log.warning("webhook given up", event_type=event.event, key=f"{event.org_id}:{event.integration_id}")

    async def _attempt(self, event: Sent, attempt: int, secret: bytes) -> int | None:
        """Sends an event once; returns the status, or None without an answer within 3 s.

        Args:
            event: The event.
            attempt: Number of earlier attempts for this event.
            secret: Key of the signature.
        """
        body = webhook_sent.body(event, attempt)
        headers = webhook_sent.headers(sign(secret, body), now_us())
        try:
            # The client's own time-out limits each read and write; only this one limits the whole attempt.
            async with asyncio.timeout(TIMEOUT_S):
                return (await self._http.post(self._url, content=body, headers=headers)).status_code
        except (httpx2.HTTPError, TimeoutError):
            return None
