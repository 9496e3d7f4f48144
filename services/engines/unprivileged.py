"""Finds a user and folders for PostgreSQL when this process is root: PostgreSQL refuses to run as root.

Problem: the unprivileged user often cannot reach the wanted folder, since a home or a temporary folder has mode 0700.

Rule: no permission of a foreign folder is changed. If the user cannot reach the wanted folder, a substitute folder is
used: below /var/tmp (or another temporary folder), in a folder of this process's user. The name of the substitute
contains a hash of the wanted path, so every run finds the same substitute. Beside each substitute a note
(`.stands-for`) holds the wanted path; a substitute whose surroundings have vanished is removed.

/var/tmp and /tmp are writable for every user of the machine. So a folder in /var/tmp or /tmp is used only if this
process's user owns the folder, and never if the folder is a symbolic link.
"""

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.engines.errors import EngineError

_NOTE_SUFFIX = ".stands-for"
_LOCK = ".lock"
"""File of the lock for copies, in the folder of all substitutes."""
_USER_NAMES = ("nobody", "daemon")
_PERSISTENT_TMP = Path("/var/tmp")  # noqa: S108 - survives a reboot; `_own_folder` checks the owner of the folder inside
_TMP = Path("/tmp")  # noqa: S108 - as above


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the machine.

    Attributes:
        name: Login name, for messages.
        uid: Number of the user.
        gid: Number of the user's primary group; supplementary groups do not count (`parent_death` drops them).
    """

    name: str
    uid: int
    gid: int


def account() -> Account | None:
    """Returns the user that PostgreSQL must run as; None if this process is not root and needs no change of user.

    Raises:
        EngineError: This process is root, and the machine has no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    for name in _USER_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EngineError(
        f"PostgreSQL refuses to run as root, and no user of {', '.join(_USER_NAMES)} exists. Set DATABASE_URL."
    )


def can_reach(user: Account, path: Path) -> bool:
    """True if `user` may enter every existing folder on the way to `path`, and `path` itself if `path` is a folder."""
    resolved = path.resolve()
    return all(_may_enter(user, folder) for folder in (*reversed(resolved.parents), resolved) if folder.is_dir())


def reachable_folder(user: Account, wanted: Path) -> Path:
    """Returns `wanted` if `user` can reach the folder above, else the substitute of `wanted`.

    Creates the folder above the result, not the result itself. Removes abandoned substitutes.

    Raises:
        EngineError: The user can reach neither the wanted nor a substitute folder.
    """
    if can_reach(user, wanted.parent):
        wanted.parent.mkdir(parents=True, exist_ok=True)
        # Checked again: under a strict umask the new folders are closed.
        if can_reach(user, wanted.parent):
            return wanted
    digest = hashlib.sha256(str(wanted.resolve()).encode()).hexdigest()[:16]
    for top in (_PERSISTENT_TMP, Path(tempfile.gettempdir()), _TMP):
        if can_reach(user, top) and (own_folder := _own_folder(top / f"genesys-lifecycle-{os.geteuid()}")):
            _remove_orphans(own_folder)
            chosen = own_folder / f"{wanted.name}-{digest}"
            _note_of(chosen).write_text(str(wanted.resolve()))
            return chosen
    raise EngineError(
        f"The user {user.name} can reach neither {wanted.parent} nor a temporary folder. Set DATABASE_URL."
    )


def _note_of(folder: Path) -> Path:
    """Returns the path of a substitute's note; not `with_suffix`, since the name of a version holds a dot."""
    return folder.with_name(folder.name + _NOTE_SUFFIX)


def _remove_orphans(own_folder: Path) -> None:
    """Removes each substitute whose wanted path has lost its parent folder: no later run can ask for the substitute."""
    for note in own_folder.glob(f"*{_NOTE_SUFFIX}"):
        if not Path(note.read_text()).parent.exists():
            remove_folder(note.with_name(note.name.removesuffix(_NOTE_SUFFIX)))


def remove_folder(folder: Path) -> None:
    """Removes a folder returned by `reachable_folder`, and the note of a substitute."""
    shutil.rmtree(folder, ignore_errors=True)
    _note_of(folder).unlink(missing_ok=True)


def mirror(user: Account, source: Path, parts: tuple[str, ...]) -> Path:
    """Returns `source` if `user` can reach all `parts`, else a copy of the parts that `user` can reach.

    The copy is kept. Every call compares sizes and times of change of the files, and replaces a copy that differs from
    the source. Calls at the same time, also of several processes, take turns.

    Args:
        user: The user who reads the files.
        source: Folder of an installation.
        parts: Paths of the needed folders and files, relative to `source`.

    Returns:
        The folder that contains `parts`.
    """
    if all(can_reach(user, source / part) for part in parts):
        return source
    copy = reachable_folder(user, source)
    if copy == source:
        return copy
    with (copy.parent / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _versions(source, parts) != _versions(copy, parts):
            _replace(source, copy, parts)
    return copy


def _replace(source: Path, copy: Path, parts: tuple[str, ...]) -> None:
    """Copies the parts of `source`, and replaces an older copy."""
    # Beside the copy, so that the rename stays on one file system.
    staging = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    for part in parts:
        if (source / part).is_dir():
            shutil.copytree(source / part, staging / part, symlinks=True)
        else:
            (staging / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / part, staging / part)
    _open_to_all(staging)
    # Moved aside first: a copy in use is never half removed under its own name.
    old = staging.with_name(staging.name + "-old")
    if copy.exists():
        copy.rename(old)
    staging.rename(copy)
    shutil.rmtree(old, ignore_errors=True)


def _open_to_all(tree: Path) -> None:
    """Gives every user the owner's rights to read, enter and execute; a strict umask may have removed those rights."""
    for path in (tree, *tree.rglob("*")):
        # 0o500 is read and execute of the owner; the shifts by 3 and 6 bits give both to the group and to all users.
        owner = path.stat().st_mode & 0o500
        path.chmod(owner | 0o200 | owner >> 3 | owner >> 6)


def _versions(folder: Path, parts: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Returns size in bytes and time of change of every file of `parts`, by its path relative to `folder`."""
    # `copy2` keeps the time of change, and every package manager gives a new file a new one.
    files = ((file, file.stat()) for part in parts for file in _files(folder / part))
    return {str(file.relative_to(folder)): (status.st_size, status.st_mtime_ns) for file, status in files}


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _own_folder(folder: Path) -> Path | None:
    """Creates `folder` and returns `folder`; None if the folder cannot be created or belongs to a foreign user."""
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return None
    # lstat: a symbolic link planted by a foreign user would lead the data of this process elsewhere.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return None
    folder.chmod(0o755)
    return folder


def _may_enter(user: Account, folder: Path) -> bool:
    """True if the mode bits of `folder` let `user` enter; access control lists are not read."""
    # Only the first class that fits counts, as in the kernel: the owner has the owner's bits, never those for all.
    status = folder.stat()
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
