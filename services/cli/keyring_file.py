"""Changes the keyring file where it stands, one command at a time.

Rule: what is written was valid before and is valid after; a file that is not is left as it is. Everything that a change
does not speak of is written back as it was read. The file itself is the lock, so nothing is left beside it.
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
    """Replace the file by what `edit` makes of it; commands at the same time wait for each other.

    Args:
        path: Of the file; behind a link it is the file itself that is replaced.
        edit: Changes the JSON in place; is also given what it means. What it raises leaves the file untouched.

    Returns:
        What the file means now.

    Raises:
        Unusable: it is no keyring, or would be none afterwards.
        Failure: it cannot be replaced.
    """
    load(path)  # where there is none, it says how to make one
    try:
        with _alone(path.resolve()) as file:
            text = file.read()
            before = parse(text, path)
            held: Json = json.loads(text)
            edit(held, before)
            after = parse(json.dumps(held).encode(), path)
            open_to_others = os.fstat(file.fileno()).st_mode & 0o077
            replace_json(path.resolve(), held)
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: cannot be replaced: {error.strerror}") from None
    if open_to_others:
        say(f"{path}: others had a right to it; now its owner alone may read it")
    return after


@contextmanager
def _alone(path: Path) -> Iterator[IO[bytes]]:
    """The file at `path`, locked; whoever waited for one that was replaced meanwhile takes the next."""
    while True:
        # NFS locks only what may be written, and a file that its owner may only read is replaced all the same.
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return
