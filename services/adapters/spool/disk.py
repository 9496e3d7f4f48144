"""Reads properties of the file system below a spool's folder: fullness, volatility, sync time, damaged spools kept.

The folder may not exist yet; each function then looks at the nearest existing ancestor.
"""

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Final

ASIDE: Final = "aside"
"""The subfolder of SPOOL_DIR that damaged spools are moved to, as evidence for an operator."""

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def fullness(folder: Path) -> float:
    """Return the used fraction (0 to 1) of a folder's file system; 0 if the file system cannot be asked.

    As in `df`, blocks reserved for root belong to neither part: an unprivileged process cannot use such blocks.
    """
    try:
        found = os.statvfs(_nearest(folder))
    except OSError:
        return 0.0
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    return 1 - found.f_bavail / usable if usable else 0.0


def is_volatile(folder: Path) -> bool:
    """True if the folder's file system is kept in memory, and a reboot loses the files."""
    nearest = _nearest(folder.resolve())
    kinds = {}
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, mounted, kind, *_ = line.split(" ")
        # The kernel writes a space in a mount point as `\040`, hence the unescaping. A later mount on the same
        # mount point hides the earlier one, so the later line overwrites the earlier.
        kinds[Path(mounted.encode().decode("unicode_escape"))] = kind
    return next((kinds[path] for path in (nearest, *nearest.parents) if path in kinds), "") in _IN_MEMORY


def sync_s(folder: Path) -> float:
    """Return the disk's time for an fsync of a small file, in seconds; infinity if the disk refuses.

    Blocks without the GIL: the event loop must call this function in a thread.
    """
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
            file.write(b"spool")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return math.inf
    return time.monotonic() - began_s


def aside_folders(folder: Path) -> list[str]:
    """Return the sorted folder names of the damaged spools kept as evidence below `folder`."""
    try:
        return sorted(path.name for path in (folder / ASIDE).iterdir())
    except OSError:
        return []


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest existing ancestor."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
