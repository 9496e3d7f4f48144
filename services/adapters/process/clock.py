"""The only place that reads the time. Everything else is given `now`."""

import time


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000  # noqa: TID251 - this is the clock
