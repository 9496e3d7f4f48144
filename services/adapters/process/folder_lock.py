"""One process in one folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.adapters.process.settings import Unusable


@contextmanager
def locked_folder(folder: Path, chosen_by: str) -> Iterator[None]:
    """Make the folder and hold it; the kernel lets go of it when we die.

    Args:
        folder: A file `lock` is left in it.
        chosen_by: The option or variable that named it.

    Raises:
        Unusable: another process holds it, or there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a+")
    except OSError as error:
        raise Unusable(f"{chosen_by}: {folder}: {error.strerror}") from None
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unusable(f"{chosen_by}: another `lifecycle` runs in {folder}; stop it, or choose another") from None
        yield
