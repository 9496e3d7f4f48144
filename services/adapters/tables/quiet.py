"""aiokafka's log, made readable: nothing below a warning, and each sentence at most once in ten seconds.

While a broker is away aiokafka repeats two sentences thirty times a second; and DEBUG records cost 7 % of the
throughput where its logger is left open.
"""

import logging
import time

_PAUSE_S = 10.0


class Once(logging.Filter):
    """Lets a sentence of a logger pass when it has not passed within the pause."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record."""
        sentence, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._passed_at.get(sentence, -_PAUSE_S) < _PAUSE_S:
            return False
        self._passed_at[sentence] = now
        return True


def quieten() -> None:
    """Set every logger of aiokafka; call once, after it was imported."""
    once = Once()
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "aiokafka"]:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        if not any(isinstance(given, Once) for given in logger.filters):
            logger.addFilter(once)
