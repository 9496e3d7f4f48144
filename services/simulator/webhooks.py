"""Sends lifecycle webhooks by the rules of the guide: signed, at least once, five retries with doubling waits.

Rules:
- A retry is a further delivery of one event, with retry metadata. With `restamp` every delivery also has its own
  `eventTimestamp`; a receiver that identifies events by timestamp would take the deliveries for several events.
- The webhook that a client has registered for the integration governs URL, secret, events, time limit and retries; one
  event keeps the webhook of its first attempt. Without one the guide's policy counts, the URL of the settings, and the
  keyring's endpoint `default`.
Source: the guide (headers, body, 3 s, `maxRetries` 5, `initialDelayMs` 1000, `backoffMultiplier` 2).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx2

from schemas import webhook_sent
from schemas.values import EventType
from schemas.webhook_definition import BACKOFF_MULTIPLIER, INITIAL_DELAY_MS, MAX_RETRIES, TIMEOUT_MS
from schemas.webhook_sent import Sent
from services.adapters.process.clock import now_us
from services.adapters.process.logs import Logger
from services.adapters.secrets import keyring
from services.core.delivery.signature import sign

_AT_ONCE: Final = 100
_ENDPOINT: Final = "default"

Registered = Callable[[str, str], Mapping[str, Any] | None]
"""Returns the registered webhook of an organisation's integration; None without one."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The webhook of an event: where and how its attempts are sent.

    Attributes:
        waits_s: The wait before each retry.
    """

    url: str
    secret: bytes
    events: frozenset[str]
    waits_s: tuple[float, ...]
    timeout_s: float


class Webhooks:
    """Sends webhooks in background tasks. For one event loop."""

    def __init__(self, url: str | None, keyring_file: Path, registered: Registered, log: Logger) -> None:
        """Prepares; nothing is sent.

        Args:
            url: Where webhooks of integrations without a registered webhook are sent; None sends none.
            keyring_file: The keyring whose endpoint `default` signs for them.
            registered: Finds the registered webhook of an integration.
            log: Logger for given up webhooks.
        """
        self._url = url
        self._keyring_file = keyring_file
        self._registered = registered
        self._log = log
        self._http = httpx2.AsyncClient(follow_redirects=False, trust_env=False)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._sending: set[asyncio.Task[None]] = set()

    def can_send(self, org: str, integration: str) -> bool:
        """True if a webhook is registered for the integration, or the settings name a URL for all."""
        return self._url is not None or self._registered(org, integration) is not None

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
        for event in events:
            target = self._target(event)
            if event.event in target.events:
                await self._send_with_retries(event, target, restamp=restamp)

    def _target(self, event: Sent) -> _Target:
        """Returns the webhook of an event as it is now."""
        found = self._registered(event.org_id, event.integration_id)
        if found is None:
            assert self._url is not None, "asked before"
            # Read for each event: the keyring file may change while the simulator runs.
            secret = keyring.raw(keyring.load(self._keyring_file).endpoints[_ENDPOINT].current.secret)
            waits_s = _waits_s(MAX_RETRIES, INITIAL_DELAY_MS, BACKOFF_MULTIPLIER)
            return _Target(self._url, secret, frozenset(EventType), waits_s, TIMEOUT_MS / 1_000)
        policy = found["retryPolicy"]
        return _Target(
            found["url"],
            found["secret"].encode(),
            frozenset(found["events"]),
            _waits_s(policy["maxRetries"], policy["initialDelayMs"], policy["backoffMultiplier"]),
            found["timeoutMs"] / 1_000,
        )

    async def _send_with_retries(self, event: Sent, target: _Target, *, restamp: bool) -> None:
        """Sends an event until an attempt gets a 2xx; logs a warning after the last attempt."""
        for attempt, wait_s in enumerate((0.0, *target.waits_s)):
            if wait_s:
                await asyncio.sleep(wait_s)
            async with self._slots:
                answer = await self._attempt(replace(event, at_us=now_us()) if restamp else event, attempt, target)
            if answer is not None and 200 <= answer < 300:
                return
        self._log.warning("webhook given up", event_type=event.event, key=f"{event.org_id}:{event.integration_id}")

    async def _attempt(self, event: Sent, attempt: int, target: _Target) -> int | None:
        """Sends an event once; returns the status, or None without an answer in time.

        Args:
            event: The event.
            attempt: Number of earlier attempts for this event.
            target: The webhook.
        """
        body = webhook_sent.body(event, attempt)
        headers = webhook_sent.headers(sign(target.secret, body), now_us())
        try:
            # The client's own time-out limits each read and write; only this one limits the whole attempt.
            async with asyncio.timeout(target.timeout_s):
                sent = self._http.post(target.url, content=body, headers=headers, timeout=target.timeout_s)
                return (await sent).status_code
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
            return None


def _waits_s(retries: int, first_ms: int, factor: float) -> tuple[float, ...]:
    return tuple(first_ms / 1_000 * factor**retry for retry in range(retries))
