"""The request budget of an access token, shared by all callers of the token: a request waits instead of being refused.

Genesys counts the requests of a token in windows of a minute and names count, limit and rest of the window in headers
of each answer. A refused request (429) costs the caller the rest of the window, and the platform's patience.

Rules:
- While a window's figures are unknown a single request is on its way; its answer tells the figures.
- Requests without an answer yet count as spent, whether the reported count already has them or not.
- The end of a window is taken a second late, because the header has whole seconds.
- A caller with a `share` leaves the rest of the budget to the callers without.

Sources: the platform's rate limits (`inin-ratelimit-count`, `-allowed`, `-reset`; 300 a minute and token by default).
"""

import asyncio
from collections.abc import Mapping
from math import inf
from typing import Final

from services.adapters.genesys.answers import ServerTrouble, Unanswered

WAIT_MAX_S: Final = 60.0
"""Longest wait for the next window; beyond, the next reconciliation asks again."""
_ALLOWED: Final = 300
_WINDOW_S: Final = 60.0
"""The platform's default limit, for answers without the headers."""
_MARGIN_S: Final = 1.0
_HOLD_MAX_S: Final = 3600.0
"""Longest time that a single answer can hold back all callers; a header with a year in it must not cost a year."""


class RateBudget:
    """The budget of one token. Use from one event loop; each `take` needs one `answered`."""

    def __init__(self, wait_max_s: float = WAIT_MAX_S) -> None:
        """Begin without figures: the first request asks for them by being answered.

        Args:
            wait_max_s: Longest wait for the next window, seconds.
        """
        self._wait_max_s = wait_max_s
        self._changed = asyncio.Condition()
        self._allowed: int | None = None
        self._until_s = inf
        self._sent = self._counted = self._in_flight = self._sent_by_share = 0

    async def take(self, share: float = 1.0) -> None:
        """Wait until a request may be sent, and count the request.

        Args:
            share: Part of the limit that the callers with a share below 1 may spend together in a window.

        Raises:
            ServerTrouble: the budget is spent for longer than the longest wait.
        """
        async with self._changed:
            while not self._is_free(share):
                wait_s = self._until_s - _now_s()
                # Unknown figures end by the answer that is awaited, and a window by its time.
                if self._allowed is not None and wait_s > self._wait_max_s + _MARGIN_S:
                    reason = f"HTTP 429 before: no request for another {wait_s:.0f} s"
                    raise ServerTrouble(reason, sort=Unanswered.RATE_LIMITED)
                try:
                    async with asyncio.timeout(None if wait_s == inf else max(0.0, wait_s)):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            self._sent += 1
            self._in_flight += 1
            self._sent_by_share += share < 1

    async def answered(self, headers: Mapping[str, str] | None, refused_s: float | None = None) -> None:
        """Take the figures from an answer.

        Args:
            headers: Headers of the answer; None without an answer.
            refused_s: After a 429 the seconds to hold back all callers; else None.
        """
        async with self._changed:
            self._in_flight -= 1
            count, allowed, reset_s = (_whole(headers, name) for name in ("count", "allowed", "reset"))
            if count is not None and allowed is not None and reset_s is not None:
                self._counted = max(self._counted, count)
                if not self._in_flight:
                    # With every request answered the server's figure is the truth, also a smaller one.
                    self._sent = self._counted = count
                self._window(allowed, float(reset_s))
            elif self._allowed is None:
                if headers is None:
                    self._sent = self._in_flight
                else:
                    self._window(_ALLOWED, _WINDOW_S)
            if refused_s is not None:
                self._allowed, self._until_s = 0, _now_s() + min(refused_s, _HOLD_MAX_S)
            self._changed.notify_all()

    def _is_free(self, share: float) -> bool:
        if _now_s() >= self._until_s:
            self._allowed, self._until_s = None, inf
            self._sent = self._counted = self._sent_by_share = 0
        if self._allowed is None:
            return self._sent == 0
        if share < 1 and self._sent_by_share >= max(1, int(self._allowed * share)):
            return False
        return max(self._sent, self._counted + self._in_flight) < self._allowed

    def _window(self, allowed: int, reset_s: float) -> None:
        end_s = _now_s() + min(reset_s, _HOLD_MAX_S) + _MARGIN_S
        # The later of two ends: an answer may have been long on its way. A refusal's end stays.
        self._until_s = end_s if self._allowed is None else max(self._until_s, end_s)
        self._allowed = allowed if self._allowed is None else min(self._allowed, allowed)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _whole(headers: Mapping[str, str] | None, name: str) -> int | None:
    text = (headers or {}).get(f"inin-ratelimit-{name}", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
