"""Raises the process's limit of open files at start, and says where the machine does not allow for enough.

Rule: the soft limit of many systems is 1,024, and is ours to raise up to the hard one; only an operator raises that.
"""

import resource
from typing import Final

CURE: Final = "raise the hard limit of open files: `ulimit -Hn`, LimitNOFILE= (systemd), ulimits: nofile (Docker)"


def raise_limit(wanted: int) -> str:
    """Raises the soft limit to what is wanted, as far as the hard limit allows.

    Args:
        wanted: How many files and connections may be open at once.

    Returns:
        What is missing and what to do; empty text when nothing is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ""
    return f"{wanted} open files may be needed, and {soft} are allowed; {CURE}"
