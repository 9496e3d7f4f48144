"""Caches access tokens of OAuth client credentials, and spaces requests, for steps that describe a foreign API.

Rules:

- Sagas share a token until shortly before its end. While a token is fetched, every further saga waits for the same
  request: a burst of sagas costs a single request.
- A token is memory of the process and never stored: a restart fetches anew.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from services.core.saga.calls import Answer

LIFE_S: Final = 900.0
"""Life of a token without a usable `expires_in`; Salesforce sends none. A token that ends earlier is renewed after the
first 401."""
_MARGIN_S: Final = 30.0
"""A token is renewed so long before its end: a request must not arrive with a dead token."""
_MARGIN_SHARE: Final = 0.1
"""Most of a life that the margin may take, for tokens that live for seconds."""
_KEPT_MOST: Final = 10_000
"""Tokens kept; each tenant may have a client of its own."""


class AccessToken(NamedTuple):
    """A token, and the monotonic second from which the token is renewed."""

    text: str
    until_s: float


Fetch = Callable[[], Awaitable[tuple[str, Any] | Answer]]
"""Requests a token; returns the token with `expires_in` as sent, or the answer of the step."""


class ClientTokens:
    """Tokens by client."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Prepares the cache.

        Args:
            now_s: Monotonic clock, seconds.
        """
        self._now_s = now_s
        self._kept: dict[str, AccessToken] = {}
        self._fetching: dict[str, asyncio.Task[str | Answer]] = {}

    async def get(self, client: str, fetch: Fetch) -> str | Answer:
        """Returns the token of a client; fetches a token once for all callers that wait.

        Args:
            client: Identity of client, secret, scope and endpoint.
            fetch: Requests a token.
        """
        kept = self._kept.get(client)
        if kept is not None and self._now_s() < kept.until_s:
            return kept.text
        task = self._fetching.get(client)
        if task is None:
            task = asyncio.create_task(self._fetch(client, fetch))
            self._fetching[client] = task
            task.add_done_callback(lambda _: self._fetching.pop(client, None))
        # Shielded: the request goes on for the further waiters when this caller's time is over.
        return await asyncio.shield(task)

    def drop(self, client: str, token: str) -> None:
        """Forgets a token that a system refused, unless a newer token is kept by now."""
        kept = self._kept.get(client)
        if kept is not None and kept.text == token:
            del self._kept[client]

    async def _fetch(self, client: str, fetch: Fetch) -> str | Answer:
        fetched = await fetch()
        if not isinstance(fetched, tuple):
            return fetched
        token, expires_in = fetched
        if len(self._kept) >= _KEPT_MOST:
            self._kept.clear()
        life_s = life_of_token(expires_in)
        self._kept[client] = AccessToken(token, self._now_s() + life_s - min(_MARGIN_S, life_s * _MARGIN_SHARE))
        return token


def life_of_token(expires_in: Any) -> float:
    """Returns the seconds in `expires_in`: a number or a number as text; `LIFE_S` for any further value."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return LIFE_S
    try:
        life_s = float(expires_in)
    except (ValueError, OverflowError):
        return LIFE_S
    return life_s if math.isfinite(life_s) and life_s > 0 else LIFE_S


class RequestPacer:
    """Spaces the requests of a worker to each system (`max_per_second`)."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Prepares the pacer.

        Args:
            now_s: Monotonic clock, seconds.
        """
        self._now_s = now_s
        self._next_s: dict[str, float] = {}

    async def wait(self, system: str, per_second: float, until_s: float) -> bool:
        """Waits for the next place; returns False, without a wait, if the place is after `until_s`.

        Args:
            system: Scheme, host and port.
            per_second: Most requests in a second.
            until_s: Monotonic second of the end of the call.
        """
        now_s = self._now_s()
        place_s = max(now_s, self._next_s.get(system, now_s))
        if place_s >= until_s:
            return False
        self._next_s[system] = place_s + 1 / per_second
        await asyncio.sleep(place_s - now_s)
        return True
