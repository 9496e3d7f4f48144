"""Raises the process's limit of open files at start, and reports a hard limit that is too low.

Many systems set the soft limit to 1,024. A process may raise its soft limit up to the hard limit; only an operator can
raise the hard limit.
"""

import resource
from typing import Final

CURE: Final = "raise the hard limit of open files: `ulimit -Hn`, LimitNOFILE= (systemd), ulimits: nofile (Docker)"


def raise_limit(wanted: int) -> str:
    """Raise the soft limit to `wanted`, as far as the hard limit allows.

    Args:
        wanted: Count of files and connections that may be open at once.

    Returns:
        The shortage and its remedy; empty text if the limit suffices.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # RLIM_INFINITY is -1 in Python, so `min` would choose infinity.
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ""
    return f"{wanted} open files may be needed, and {soft} are allowed; {CURE}"
