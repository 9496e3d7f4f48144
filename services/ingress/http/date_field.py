"""The `Date` field of every answer (RFC 9110, 6.6.1): one line of bytes, made anew once a second.

Rule: an answer costs one comparison of two numbers; the text is made when the second of the clock changes.
"""

from collections.abc import Callable
from email.utils import formatdate
from typing import Final

_S_US: Final = 1_000_000


class DateField:
    """The line as it must be now. Use from one loop."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Make no line yet.

        Args:
            now_us: The clock, microseconds UTC.
        """
        self._now_us = now_us
        self._until_s = float("-inf")
        self._line = b""

    def at(self, now_s: float) -> bytes:
        r"""Returns the line with its CR LF.

        Args:
            now_s: The loop's clock.
        """
        if now_s >= self._until_s:
            now_us = self._now_us()
            self._line = b"date: " + formatdate(now_us // _S_US, usegmt=True).encode() + b"\r\n"
            self._until_s = now_s + (_S_US - now_us % _S_US) / _S_US
        return self._line
