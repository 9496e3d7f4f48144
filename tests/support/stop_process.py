"""Stops a process and waits until it has stopped.

Rule: `kill` returns before a SIGSTOP has reached every thread; a Java broker was seen to go on for 20 ms, long enough
to acknowledge records. Whoever asserts what a stopped process does not do waits for all of its threads.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.support.eventually import eventually


def stop(pid: int) -> None:
    """Send SIGSTOP and return when every thread of the process stands still."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(state == "T" for state in _states(pid)))


def _states(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            # The name is in brackets and may hold anything; see proc_pid_stat(5).
            yield (task / "stat").read_text().rpartition(")")[2].split()[0]
