"""What the disk under a spool's folder is like: how full, in memory or not, and what was put aside on it."""

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Final

ASIDE: Final = "aside"
"""The folder, below that of the spools, of those kept as evidence."""

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def fullness(folder: Path) -> float:
    """How full the file system of a folder is, 0 to 1, as those see it who are not root; 0 where it cannot be told."""
    try:
        found = os.statvfs(_nearest(folder))
    except OSError:
        return 0.0
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    return 1 - found.f_bavail / usable if usable else 0.0


def is_volatile(folder: Path) -> bool:
    """Whether the file system of a folder is in memory, so that a restart of the machine loses it."""
    place = _nearest(folder.resolve())
    kinds = {}
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, mounted, kind, *_ = line.split(" ")
        kinds[Path(mounted.encode().decode("unicode_escape"))] = kind  # of two mounts on one place the later counts
    return next((kinds[path] for path in (place, *place.parents) if path in kinds), "") in _IN_MEMORY


def sync_s(folder: Path) -> float:
    """How long the disk takes to sync a small file, seconds; infinite where it cannot. Blocks, and holds nobody up."""
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
            file.write(b"spool")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return math.inf
    return time.monotonic() - began_s


def put_aside(folder: Path) -> list[str]:
    """Names of the spools kept as evidence."""
    try:
        return sorted(path.name for path in (folder / ASIDE).iterdir())
    except OSError:
        return []


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
