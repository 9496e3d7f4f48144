"""Changes the keyring file in place, one command at a time.

Rule: the file is valid before and after a change; an invalid file is left untouched. Fields not named by a change are
written back as read. The file itself is the lock: no lock file is left behind.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from schemas.keyring import Keyring
from schemas.values import Json
from services.adapters.secrets.keyring import load, parse
from services.cli.exits import CommandError, Exit
from services.cli.files import replace_json
from services.cli.show import say


def change(path: Path, edit: Callable[[Json, Keyring], None]) -> Keyring:
    """Replaces the file by the result of `edit`; simultaneous commands run in turn.

    Args:
        path: Path of the file; a symbolic link stays, and the target is replaced.
        edit: Changes the JSON in place; also receives the parsed keyring. An exception leaves the file untouched.

    Returns:
        The keyring after the change.

    Raises:
        Unusable: the file is no valid keyring, or would be none after the change.
        CommandError: the file cannot be replaced (UNUSABLE).
    """
    load(path)  # without a file, the error of `load` names the command that creates one
    try:
        with _locked(path.resolve()) as file:
            text = file.read()
            before = parse(text, path)
            content: Json = json.loads(text)
            edit(content, before)
            # Parsed before it is written: an invalid result raises here and leaves the file as it was.
            after = parse(json.dumps(content).encode(), path)
            # Read before the replacement, which is always readable by its owner alone.
            open_to_others = os.fstat(file.fileno()).st_mode & 0o077
            replace_json(path.resolve(), content)
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: cannot be replaced: {error.strerror}") from None
    if open_to_others:
        say(f"{path}: others had a right to it; now its owner alone may read it")
    return after


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Yields the file at `path`, exclusively locked."""
    while True:
        # NFS grants an exclusive lock only on a descriptor open for writing. A read-only file is opened for reading:
        # the replacement needs the right to write to the folder, not to the file.
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The lock belongs to the file, not to the path. While we waited, the holder may have replaced the file by a
            # rename; then our lock is on the old, unlinked file and excludes nobody. Only a lock on the file at the
            # path counts.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return
