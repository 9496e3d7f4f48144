"""Writes files for concurrent readers: whole, by a rename, readable by the owner alone."""

# The steps and their order: (1) a temporary file in the same folder, since a rename cannot cross file systems; (2)
# fsync of its content, since a rename may reach the disk before the data; (3) the rename, or a hard link for a file
# that must not exist; (4) fsync of the folder, which holds the name. A crash at any point leaves the old file or the
# new one.

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Replaces the content of `path`; a reader sees either the old file or the new file, never a part.

    The new file has the owner of the old file.

    Raises:
        OSError: the file cannot be written; the old file is untouched.
    """
    _write_and_publish(path, (text,), Path.rename)


def replace_lines(path: Path, lines: Iterable[str]) -> None:
    """Replaces the content of `path` by lines that need not fit into memory; see `replace`."""
    _write_and_publish(path, lines, Path.rename)


def replace_json(path: Path, value: Any) -> None:
    """Replaces the content of `path` by the JSON of a value; see `replace`."""
    replace(path, _json(value))


def create_json(path: Path, value: Any) -> None:
    """Creates `path` with the JSON of a value; of two simultaneous calls only the first succeeds.

    Raises:
        FileExistsError: `path` exists.
        OSError: the file cannot be written.
    """
    _write_and_publish(path, (_json(value),), os.link)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _write_and_publish(path: Path, parts: Iterable[str], publish: Callable[[Path, Path], object]) -> None:
    """Writes a temporary file, syncs the content to disk, and calls `publish` to give the file its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp creates the file with mode 0600, before a byte of a secret is in it.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    staging = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _keep_owner(descriptor, path)
            file.writelines(parts)
            file.flush()
            os.fsync(descriptor)
        publish(staging, path)
    finally:
        # After a rename the temporary name is gone; after a hard link or an error it is still there.
        staging.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def _keep_owner(descriptor: int, path: Path) -> None:
    """Gives the file the owner of the old one: a service must still be able to read a file that root replaced."""
    with suppress(FileNotFoundError):
        former, created = path.stat(), os.fstat(descriptor)
        if (former.st_uid, former.st_gid) != (created.st_uid, created.st_gid):
            os.fchown(descriptor, former.st_uid, former.st_gid)


def _fsync_folder(folder: Path) -> None:
    """Syncs a folder to disk, if the file system supports fsync: else a power cut could bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some file systems refuse an fsync of a folder.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
