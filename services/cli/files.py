"""Files that others may read at any moment, or never: written whole, by rename, readable by their owner alone."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Put `text` in place of whatever is at `path`, as its owner's; a reader sees the old file or the new one.

    Raises:
        OSError: it cannot be; what is at `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _hand_over(descriptor, path)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        staging.rename(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    _keep_name(path.parent)


def replace_json(path: Path, value: Any) -> None:
    """`replace` with the JSON of a value."""
    replace(path, json.dumps(value, indent=2) + "\n")


def _hand_over(descriptor: int, path: Path) -> None:
    """Give a file that root replaces to whom it belonged: a service must still be able to read it."""
    with suppress(FileNotFoundError):
        was, made = path.stat(), os.fstat(descriptor)
        if (was.st_uid, was.st_gid) != (made.st_uid, made.st_gid):
            os.fchown(descriptor, was.st_uid, was.st_gid)


def _keep_name(folder: Path) -> None:
    """Write the folder down as well, where its file system can: a power cut must not bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
