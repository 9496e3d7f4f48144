"""Ends a table worker: one exit status per reason, and one last line that names the reason and the position.

Approach: crash-only. A check calls `End`, which ends the process at once with `os._exit`: no `finally` clause runs,
nothing is flushed, no offset is committed. The replay after the restart writes every unacknowledged record again.

Rule: a check never raises into Faust, because Faust would log the exception and continue.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, NoReturn

_NOTES: Final = "ends.json"


class WorkerExit(IntEnum):
    """Exit statuses of a table worker, from 70 (sysexits' EX_SOFTWARE) upwards.

    A supervisor should restart the worker after each status except LOSS and POISON: those need an operator.
    """

    UNDELIVERED = 70
    """A record of the worker was not written within the producer's time limit, or was refused."""
    UNEXPECTED = 71
    """A decision raised: a bug, found at the record in the last line. No offset of that record was committed."""
    LOSS = 72
    """Input records were removed before the worker read them: the committed offset is outside the log."""
    STORE = 73
    """The local copy of a table could not be read or written."""
    FOREIGN_WRITER = 74
    """A second process wrote this worker's changelog: one of the two had lost the partition without noticing."""
    FENCE = 75
    """The next record does not follow the last one, and the log does not confirm the gap."""
    COORDINATOR = 76
    """The task that keeps this worker in its consumer group has ended."""
    STALL = 77
    """A partition or a recovery made no progress while work was waiting."""
    INCOMPLETE_ASSIGNMENT = 78
    """Input partitions were assigned without the changelogs of their tables."""
    METADATA = 79
    """The cluster's metadata lacks a topic of the group (just after a restart of a broker), or partition counts
    differ."""
    CHANGELOG_BEHIND = 80
    """The local copy is ahead of its changelog: the topic was made anew, or lost its last records."""
    CRASHED = 81
    """Faust stopped because of an error of its own."""
    STUCK = 82
    """The worker did not stop within its time limit; the last line names the lines of code where its tasks waited."""
    POISON = 83
    """Many records in a row could not be read, so this version of the program is probably the wrong one."""
    DENIED = 84
    """A right was taken away during work; the last line names the right. A start without the right ends with status 5,
    as any command does."""


End = Callable[[WorkerExit, str], NoReturn]
"""Ends the process. Code takes this function as an argument, so that a test can observe the call."""


def record_end(folder: Path) -> End:
    """Returns an `End` that first counts the exit in a file of the folder."""

    def end(reason: WorkerExit, why: str) -> NoReturn:
        with suppress(OSError):  # a full disk must not keep the process from ending
            counts = load_ends(folder)
            counts[reason] += 1
            replacement = folder / f"{_NOTES}.new"
            replacement.write_text(json.dumps({each.name: counts[each] for each in counts}))
            # Renamed into place: a kill in the middle of the write leaves the former counts intact.
            replacement.replace(folder / _NOTES)
        die(reason, why)

    return end


def load_ends(folder: Path) -> Counter[WorkerExit]:
    """Returns the number of recorded exits by reason; zero counts if the file cannot be read."""
    try:
        stored = json.loads((folder / _NOTES).read_text())
        return Counter(
            {WorkerExit[name]: int(count) for name, count in stored.items() if name in WorkerExit.__members__}
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return Counter()


def die(reason: WorkerExit, why: str) -> NoReturn:
    """Writes the last line to standard error and ends the process; callable from any thread."""
    try:
        line = {"level": "critical", "event": f"{reason.name}: {why}", "exit_status": int(reason)}
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()
    finally:  # also when standard error is closed or the disk is full
        os._exit(reason)
