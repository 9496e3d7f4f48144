"""The rate limits of the simulated Genesys: a budget for each token and for each client that requests tokens.

Rule: a budget belongs to a window of a minute that begins with the first request. Every answer names count, limit and
the whole seconds to the end of the window; every refusal is counted, so a test sees a client that asks too often.
"""

import time
from collections import defaultdict
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

WINDOW_S: Final = 60
MINTS_PER_MINUTE: Final = 60


@dataclass(slots=True)
class _Window:
    until_s: float = 0.0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """State of a budget after a request.

    Attributes:
        refused: True if the budget was used up before the request.
        count: Requests of the window.
        allowed: Limit of the window.
        reset_s: Whole seconds to the end of the window, at least 1.
    """

    refused: bool
    count: int
    allowed: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Returns the headers of an answer, by the names of the platform."""
        figures = {"count": self.count, "allowed": self.allowed, "reset": self.reset_s}
        return {f"inin-ratelimit-{name}": str(value) for name, value in figures.items()}


class Budgets:
    """The budgets of all tokens and clients; lost at a restart. For one event loop."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._windows: dict[str, _Window] = defaultdict(_Window)
        self._counts: dict[str, dict[str, int]] = {}

    def request(self, token: str, org: str) -> Spent:
        """Counts a request of a token."""
        return self._spend(token, self._per_minute, org, "requests")

    def mint(self, org: str) -> Spent:
        """Counts a request for a token."""
        return self._spend(f"mint:{org}", MINTS_PER_MINUTE, org, "mints")

    def counts(self) -> dict[str, Any]:
        """Returns by organisation the requests, mints and refusals since the start."""
        return self._counts

    def _spend(self, name: str, allowed: int, org: str, what: str) -> Spent:
        window, now_s = self._windows[name], time.monotonic()
        if now_s >= window.until_s:
            window.until_s, window.count = now_s + WINDOW_S, 0
        refused = window.count >= allowed
        window.count += not refused
        counts = self._counts.setdefault(org, {"requests": 0, "requests_refused": 0, "mints": 0, "mints_refused": 0})
        counts[f"{what}_refused" if refused else what] += 1
        # Rounded first: the sum and difference of two floats may exceed the length of the window by a rounding error.
        return Spent(refused, window.count, allowed, max(1, ceil(round(window.until_s - now_s, 3))))
