"""Identity of a file's content by `stat`, for loops that look whether a file was replaced, rewritten or removed."""

from pathlib import Path
from typing import Final

SETTLED_S: Final = 2.5
"""Time after a change during which each look reads the file again, seconds.

Two writes within a tick of the file system's clock leave the same `stat`. The coarsest clock in use ticks every 2 s.
"""


def file_identity(path: Path) -> tuple[int, ...] | None:
    """Return the `stat` fields that change with the file's contents, links followed; None if `stat` fails."""
    try:
        found = path.stat()
    except OSError:
        return None
    # The inode changes by a rename, size and times by a write in place; ctime also if mtime was set back by hand.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
