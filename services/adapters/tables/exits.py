"""How a worker ends itself: a status for each reason, and one last line that says what and where.

Rule: a check never guesses and never raises into Faust, which would log and go on. It ends the process at once;
nothing is flushed, since whatever was not acknowledged is written again by the replay.
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

    Start it again after each but LOSS and POISON.
    """

    UNDELIVERED = 70
    """A record that it sent was not written within its time."""
    UNEXPECTED = 71
    """A decision raised: a bug, met at the record that is named. Nothing of that record was committed."""
    LOSS = 72
    """The committed offset is outside the log: records were removed before they were read."""
    STORE = 73
    """The local copy of a table could not be written or read."""
    FOREIGN_WRITER = 74
    """Somebody else wrote this worker's changelog: one of the two had lost the partition and did not know."""
    FENCE = 75
    """The next record read does not follow the last one: a hole."""
    COORDINATOR = 76
    """The task that keeps this worker in its group is dead."""
    STALL = 77
    """A partition, or a recovery, has stood still with work waiting."""
    INCOMPLETE_ASSIGNMENT = 78
    """Events without their tables were assigned."""
    METADATA = 79
    """The cluster's metadata lacks a topic of the group, just after a restart of a broker."""
    CHANGELOG_BEHIND = 80
    """The local copy is ahead of its changelog: the topic was made anew, or lost its end."""
    CRASHED = 81
    """Faust gave up by itself."""
    STUCK = 82
    """It was asked to stop and did not within its time; where its tasks stood is told."""
    POISON = 83
    """So many records in a row could not be read that this version must be the wrong one. Start the right one."""
    DENIED = 84
    """A right was taken away while it worked; which one is told. A start without it ends as any command does (5)."""


End = Callable[[WorkerExit, str], NoReturn]
"""Ends the process; given as an argument, so that a test can watch it."""


def record_end(folder: Path) -> End:
    """An `End` that counts itself in a file of the folder before."""

    def end(reason: WorkerExit, why: str) -> NoReturn:
        with suppress(OSError):  # a disk that is full must not keep anybody from ending
            counts = load_ends(folder)
            counts[reason] += 1
            fresh = folder / f"{_NOTES}.new"
            fresh.write_text(json.dumps({each.name: counts[each] for each in counts}))
            fresh.replace(folder / _NOTES)
        die(reason, why)

    return end


def load_ends(folder: Path) -> Counter[WorkerExit]:
    """How often workers of this folder have ended themselves, by reason; a file that cannot be read counts nothing."""
    try:
        told = json.loads((folder / _NOTES).read_text())
        return Counter({WorkerExit[name]: int(count) for name, count in told.items() if name in WorkerExit.__members__})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return Counter()


def die(reason: WorkerExit, why: str) -> NoReturn:
    """Write the last line to standard error and end the process, from whatever thread."""
    try:
        line = {"level": "critical", "event": f"{reason.name}: {why}", "exit_status": int(reason)}
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()
    finally:  # also where nobody reads what it says, or the disk is full
        os._exit(reason)
