"""The only module of this project that reads the wall clock; decisions receive the time as an argument."""

import time


def now_us() -> int:
    """Return the time in microseconds since 1970 UTC."""
    return time.time_ns() // 1000  # noqa: TID251 - this is the clock
