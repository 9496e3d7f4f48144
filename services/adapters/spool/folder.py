"""Creates, claims, publishes and removes the folders of spools below a common parent (SPOOL_DIR).

Problem: several processes may share SPOOL_DIR. Each process adopts the folders of dead processes, and any process can
be killed between two system calls.

Approach:
- Ownership is an flock on the file `lock` in the folder. The kernel releases an flock when the process ends: a
  folder with a free lock was left behind.
- A folder carries a dot-name (`.TIME-RANDOM`) during creation and again during removal. `abandoned_folders` ignores
  dot-names: no process adopts an incomplete folder. The next `begin` deletes unlocked dot-named folders.
- The folder is synced before the rename to its final name, and the parent after the rename. Both precede the first
  record: a power cut could otherwise lose the folder, with records already reported as kept.

Invariant: only the owner renames or deletes a published folder.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from services.adapters.spool.disk import ASIDE

_NAME: Final = re.compile(r"\.?\d{16}-\w+")
"""The name of a spool's folder: creation time in µs (16 digits, so names sort by age), then a random suffix.

A file or folder of another name is never deleted or adopted.
"""

RECORDS: Final = "records"

_LOCK: Final = "lock"


class SpoolError(Exception):
    """A spool cannot be created, opened or moved; the text gives the operator the path and the reason."""


class FolderInUse(SpoolError):
    """The folder is owned by a running process, or was removed by its former owner."""


class Folder:
    """A spool's folder, owned by this process through the lock."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def begin(cls, parent: Path, made_us: int) -> Self:
        """Create a locked folder with an empty subfolder `records`, under a dot-name.

        Deletes the dot-named folders of dead processes first.

        Args:
            parent: SPOOL_DIR; created if missing.
            made_us: Creation time for the name, microseconds UTC.

        Raises:
            SpoolError: the disk refuses.
        """
        with _as_spool_error(parent):
            if not parent.is_dir():
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync(parent.parent)
            # A new folder has no lock for a moment, and looks abandoned to `_remove_incomplete`: hence the parent's
            # lock.
            with _parent_locked(parent):
                _remove_incomplete(parent)
                path = Path(tempfile.mkdtemp(prefix=f".{made_us:016d}-", dir=parent))
                lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                with _closed_on_error(lock):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (path / RECORDS).mkdir(mode=0o700)
            return cls(path, lock)

    @classmethod
    def adopt(cls, path: Path) -> Self:
        """Claim a folder left behind by a dead process.

        Raises:
            FolderInUse: a running process owns the folder, or the folder is gone.
            SpoolError: the disk refuses.
        """
        with _as_spool_error(path):
            try:
                lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise FolderInUse(f"{path}: is gone") from None
            with _closed_on_error(lock):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Between `open` and `flock` the former owner may have removed or moved the folder. Only if the path
                    # still names the locked inode is the folder ours.
                    is_ours = os.path.samestat(os.fstat(lock), (path / _LOCK).stat())
                except (BlockingIOError, FileNotFoundError):
                    is_ours = False
                if not is_ours:
                    raise FolderInUse(f"{path}: another process has it")
            return cls(path, lock)

    @property
    def made_us(self) -> int:
        """The creation time, microseconds UTC, read from the name."""
        return int(self.path.name.lstrip(".").partition("-")[0])

    def publish(self) -> None:
        """Rename the folder from its dot-name to its final name, for `abandoned_folders` to list later.

        Raises:
            SpoolError: the disk refuses.
        """
        with _as_spool_error(self.path):
            # The order matters: contents on disk, then the name, then the name on disk.
            _sync(self.path)
            self.path = self.path.rename(self.path.with_name(self.path.name.lstrip(".")))
            _sync(self.path.parent)

    def move_aside(self, reason: str) -> None:
        """Move the folder with all contents to `aside/NAME-reason`, and release the lock.

        Raises:
            SpoolError: the disk refuses; the lock stays held.
        """
        with _as_spool_error(self.path):
            aside = self.path.parent / ASIDE
            aside.mkdir(mode=0o700, exist_ok=True)
            self.path = self.path.rename(aside / f"{self.path.name.lstrip('.')}-{reason}")
        self.release()

    def remove(self) -> None:
        """Delete the folder with all contents; the next `begin` retries if the disk refuses now."""
        try:
            # The dot-name comes first: a kill halfway through must not leave a partial spool to be adopted.
            self.path = self.path.rename(self.path.with_name("." + self.path.name.lstrip(".")))
        except OSError:
            self.release()
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Release the lock and leave the folder unchanged, to be adopted later."""
        os.close(self._lock)


def abandoned_folders(parent: Path) -> list[Path]:
    """Return the published folders without a living owner, oldest first.

    The check locks each folder for a moment, and a concurrent `Folder.adopt` of a second process fails. So call
    this function only in order to adopt the folders, not to watch SPOOL_DIR.

    Raises:
        SpoolError: the disk refuses.
    """
    with _as_spool_error(parent):
        names = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    return [parent / name for name in names if _NAME.fullmatch(name) and name[0] != "." and _is_free(parent / name)]


def _is_free(path: Path) -> bool:
    try:
        lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A shared lock suffices: the owner's is exclusive, and two processes that look do not hide a folder.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _remove_incomplete(parent: Path) -> None:
    """Delete the dot-named folders of dead processes. The parent must be locked."""
    for path in parent.glob(".*"):
        if _NAME.fullmatch(path.name) and (_is_free(path) or not (path / _LOCK).exists()):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _parent_locked(parent: Path) -> Iterator[None]:
    """Lock the parent, to keep a second process from `_remove_incomplete` until the new folder is locked."""
    lock = os.open(parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    """Close a file if the context raises: an open lock file would hold the folder until the end of this process."""
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def _as_spool_error(path: Path) -> Iterator[None]:
    """Turn an OSError of the context into a SpoolError with `path` in the text."""
    try:
        yield
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from None


def _sync(folder: Path) -> None:
    """Sync the directory entries of a folder: fsync of a file does not make the file's name durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
