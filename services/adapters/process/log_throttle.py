"""Lets a sentence of a foreign library pass once in ten seconds, and other sentences beside it.

While a broker is away librdkafka and aiokafka say so twenty or thirty times a second, and a limit on all lines together
would hide the one that says something else. A sentence is a line without its numbers: addresses, counts and durations
vary where nothing new is said.
"""

import logging
import re
import time
from typing import Final

PAUSE_S: Final = 10.0

_SENTENCES_MAX: Final = 1_000
"""Remembered at most: a library that puts names into its lines must not fill the memory."""

_NUMBERS: Final = re.compile(r"\d+")


class ThrottleFilter(logging.Filter):
    """Lets a sentence of a logger pass when it has not passed within the pause."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record."""
        sentence, now_s = (record.name, _NUMBERS.sub("", record.getMessage())), time.monotonic()
        if now_s - self._passed_at_s.get(sentence, -PAUSE_S) < PAUSE_S:
            return False
        if len(self._passed_at_s) >= _SENTENCES_MAX:
            self._passed_at_s.clear()
        self._passed_at_s[sentence] = now_s
        return True


LIBRDKAFKA: Final = logging.getLogger("librdkafka")
"""Every client of librdkafka in a service writes here (`Settings.kafka`)."""
LIBRDKAFKA.addFilter(ThrottleFilter())
