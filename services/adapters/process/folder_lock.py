"""Locks a folder for a single process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.adapters.process.errors import Unusable


@contextmanager
def locked_folder(folder: Path, chosen_by: str) -> Iterator[None]:
    """Create a folder and lock the folder during the context.

    The lock is an flock, which the kernel releases when the process ends, also after a kill.

    Args:
        folder: The folder; a file `lock` is created there and stays.
        chosen_by: The option or setting with the folder's path, for the error text.

    Raises:
        Unusable: a running process holds the lock, or the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a+")  # "a" never truncates, so the mode is safe before the lock is held
    except OSError as error:
        raise Unusable(f"{chosen_by}: {folder}: {error.strerror}") from None
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unusable(f"{chosen_by}: another `lifecycle` runs in {folder}; stop it, or choose another") from None
        yield
