"""Files that others may read at any moment, or never: written whole, by rename, readable by their owner alone."""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Put `text` in place of whatever is at `path`, as its owner's; a reader sees the old file or the new one.

    Raises:
        OSError: it cannot be; what is at `path` is untouched.
    """
    _put(path, text, Path.rename)


def replace_json(path: Path, value: Any) -> None:
    """`replace` with the JSON of a value."""
    replace(path, _json(value))


def create_json(path: Path, value: Any) -> None:
    """Put the JSON of a value at `path`, where nothing is; of two who try at once one does.

    Raises:
        FileExistsError: something is there.
        OSError: it cannot be.
    """
    _put(path, _json(value), os.link)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _put(path: Path, text: str, name_it: Callable[[Path, Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # new, and its owner's alone
    staging = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _hand_over(descriptor, path)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        name_it(staging, path)
    finally:
        staging.unlink(missing_ok=True)
    _keep_name(path.parent)


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
