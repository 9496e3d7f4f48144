"""Throttles log messages of libraries: each distinct message passes at most once in ten seconds.

While a broker is away, librdkafka and aiokafka log this twenty or thirty times a second. A common limit for all
messages would hide a different message among the repetitions. Messages are compared without digits, because addresses,
counts and durations vary between repetitions.
"""

import logging
import re
import time
from typing import Final

PAUSE_S: Final = 10.0

"""Time during which a repeated message is dropped, seconds."""

_MESSAGES_MAX: Final = 1_000
"""Greatest count of remembered messages: a library with names in its messages must not fill the memory."""

_NUMBERS: Final = re.compile(r"\d+")


class ThrottleFilter(logging.Filter):
    """A logging filter that drops a logger's message if an equal message passed within the pause."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record is to be written."""
        message, now_s = (record.name, _NUMBERS.sub("", record.getMessage())), time.monotonic()
        if now_s - self._passed_at_s.get(message, -PAUSE_S) < PAUSE_S:
            return False
        if len(self._passed_at_s) >= _MESSAGES_MAX:
            self._passed_at_s.clear()  # costs at most a repetition of each message
        self._passed_at_s[message] = now_s
        return True


LIBRDKAFKA: Final = logging.getLogger("librdkafka")
"""The logger of every librdkafka client in the process (`Settings.kafka`)."""
LIBRDKAFKA.addFilter(ThrottleFilter())
