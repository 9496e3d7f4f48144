"""Folders of spools under one parent: made, owned, left behind, put aside.

Rule: whoever holds the lock of a folder owns it, and a lock ends with its process. A folder has a dot-name until it is
whole and again before it is removed, so that nobody finds a part of one; it is known to be on disk before it is used.
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
"""Microseconds when it was made, so that names sort by age, and what makes it unique. Nothing else is touched."""

RECORDS: Final = "records"

_LOCK: Final = "lock"


class SpoolError(Exception):
    """A spool cannot be had; the text tells an operator why."""


class FolderTaken(SpoolError):
    """Another process has it, or had it and is done with it."""


class Folder:
    """A folder that this process owns."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def begin(cls, parent: Path, made_us: int) -> Self:
        """Make one with an empty subfolder `records`, under a dot-name; remove those whose making was never finished.

        Raises:
            SpoolError: the disk refuses.
        """
        with _named(parent):
            if not parent.is_dir():
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync(parent.parent)
            with _alone(parent):
                _sweep(parent)
                path = Path(tempfile.mkdtemp(prefix=f".{made_us:016d}-", dir=parent))
                lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path / RECORDS).mkdir(mode=0o700)
            return cls(path, lock)

    @classmethod
    def take(cls, path: Path) -> Self:
        """Own a folder left behind.

        Raises:
            Taken: somebody else has it.
            SpoolError: the disk refuses.
        """
        with _named(path):
            try:
                lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise FolderTaken(f"{path}: is gone") from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between the two calls its owner may have removed it, or moved it.
                if os.path.samestat(os.fstat(lock), (path / _LOCK).stat()):
                    return cls(path, lock)
            except (BlockingIOError, FileNotFoundError):
                pass
            os.close(lock)
            raise FolderTaken(f"{path}: another process has it")

    @property
    def made_us(self) -> int:
        """When it was made, microseconds UTC."""
        return int(self.path.name.lstrip(".").partition("-")[0])

    def publish(self) -> None:
        """Give it its name: whoever looks for folders finds it, once this process is gone.

        Raises:
            SpoolError: the disk refuses.
        """
        with _named(self.path):
            _sync(self.path)
            self.path = self.path.rename(self.path.with_name(self.path.name.lstrip(".")))
            _sync(self.path.parent)

    def aside(self, reason: str) -> None:
        """Move it out of everybody's way, with all that is in it, and let go of it.

        Raises:
            SpoolError: the disk refuses.
        """
        with _named(self.path):
            place = self.path.parent / ASIDE
            place.mkdir(mode=0o700, exist_ok=True)
            self.path = self.path.rename(place / f"{self.path.name.lstrip('.')}-{reason}")
        self.release()

    def remove(self) -> None:
        """Remove it with all that is in it; what the disk refuses to remove is tried again by the next `begin`."""
        try:
            self.path = self.path.rename(self.path.with_name("." + self.path.name.lstrip(".")))
        except OSError:
            self.release()
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of it as it is."""
        os.close(self._lock)


def left_behind(parent: Path) -> list[Path]:
    """Folders whose process is gone, the oldest first. Whoever looks should take: looking holds each for a moment.

    Raises:
        SpoolError: the disk refuses.
    """
    with _named(parent):
        names = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    return [parent / name for name in names if _NAME.fullmatch(name) and name[0] != "." and _is_free(parent / name)]


def _is_free(path: Path) -> bool:
    try:
        lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _sweep(parent: Path) -> None:
    for path in parent.glob(".*"):
        if _NAME.fullmatch(path.name) and (_is_free(path) or not (path / _LOCK).exists()):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """Between the making of a folder and its lock nobody else may sweep."""
    lock = os.open(parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from None


def _sync(folder: Path) -> None:
    """Put the names in a folder on disk: without it, a power cut may take a file that was synced itself."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
