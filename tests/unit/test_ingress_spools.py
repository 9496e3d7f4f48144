"""The disk under the spools of a process: the event loop never waits for it."""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.adapters.process import logs
from services.adapters.process.clock import now_us
from services.adapters.spool.folder import Folder
from services.ingress.spools import SpoolLimits, Spools
from services.ingress.telemetry import Telemetry

_OF_THE_DISK = frozenset({"flock", "listdir", "lstat", "open", "scandir", "stat", "statvfs"})


@contextmanager
def calls_of_this_thread() -> Iterator[list[str]]:
    """The calls of the file system that this thread makes; calls of other threads are not noted."""
    made: list[str] = []

    def note(_: object, event: str, called: Any) -> None:
        if event == "c_call" and called.__module__ in {"posix", "fcntl"} and called.__name__ in _OF_THE_DISK:
            made.append(called.__name__)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield made
    finally:
        sys.setprofile(before)


async def test_the_event_loop_leaves_every_call_of_the_file_system_to_a_thread(tmp_path: Path) -> None:
    await asyncio.to_thread(str)  # a first thread's imports are not ours
    telemetry = Telemetry(logs.configure("test", "critical"))
    limits = SpoolLimits(tmp_path, 1 << 26, 10**12, 1.0)
    left = Folder.begin(tmp_path, 1)
    left.publish()
    left.release()
    with calls_of_this_thread() as made:
        spools = await Spools.open(limits, telemetry, now_us)
        await spools.maintain()
        assert spools.has_room
        await asyncio.to_thread(shutil.rmtree, tmp_path)
        await spools.maintain()
    assert spools.fault == "gone"
    assert made == []
    await spools.end()


async def test_an_error_of_the_disk_while_the_limits_are_looked_at_counts_more_than_a_limit(tmp_path: Path) -> None:
    spools = await Spools.open(
        SpoolLimits(tmp_path, 0, 10**12, 1.0), Telemetry(logs.configure("test", "critical")), now_us
    )
    (own,) = spools.to_drain
    looking = asyncio.create_task(spools.maintain())
    await asyncio.sleep(0)
    own._close_on_fault("fsync")
    await looking
    assert spools.fault == own.closed == "fsync", "no further spool is opened after an error of the disk"
    await spools.end()
