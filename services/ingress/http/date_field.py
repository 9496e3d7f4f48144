"""The `Date` field of every answer (RFC 9110, 6.6.1): a line of bytes, formatted once a second.

Rule: an answer costs a comparison of two numbers. The text is formatted only when the second of the clock changes.
"""

from collections.abc import Callable
from email.utils import formatdate
from typing import Final

_S_US: Final = 1_000_000


class DateField:
    """Caches the `Date` line of the current second. Use from a single event loop."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Starts with an empty cache.

        Args:
            now_us: The clock, microseconds UTC.
        """
        self._now_us = now_us
        self._until_s = float("-inf")
        self._line = b""

    def at(self, now_s: float) -> bytes:
        r"""Returns the `Date` line with CR LF.

        Args:
            now_s: The loop's clock, seconds.
        """
        # Two clocks: the loop's is read anyway and never jumps, so it decides when the cached line ends; the wall
        # clock is read once a second, for the text.
        if now_s >= self._until_s:
            now_us = self._now_us()
            self._line = b"date: " + formatdate(now_us // _S_US, usegmt=True).encode() + b"\r\n"
            self._until_s = now_s + (_S_US - now_us % _S_US) / _S_US
        return self._line
