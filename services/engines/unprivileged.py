"""What PostgreSQL needs when we are root: another user, and places that user can reach.

Rule: no permission of a folder that is not ours is ever changed. Where the way to a folder is closed to that user (a
home or a temporary folder is 0700), its contents live under the system's temporary folder instead, by a name made from
the path they stand for, in a folder that belongs to us.
"""

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

_STANDS_FOR = ".stands-for"
_NAMES = ("nobody", "daemon")
_LASTING = Path("/var/tmp")  # noqa: S108 - it outlives a reboot; `_owned` checks who made the folder inside
_SHORT = Path("/tmp")  # noqa: S108 - as above


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its group, by number."""

    name: str
    uid: int
    gid: int


def account() -> Account | None:
    """Who PostgreSQL runs as: None, which is ourselves, unless we are root.

    Raises:
        EngineError: We are root, and there is no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    for name in _NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EngineError(
        f"PostgreSQL refuses to run as root, and no user of {', '.join(_NAMES)} exists. Set DATABASE_URL."
    )


def reaches(who: Account, path: Path) -> bool:
    """Whether `who` may walk to `path` and into it, as far as it exists."""
    whole = path.resolve()
    return all(_may_enter(who, folder) for folder in (*reversed(whole.parents), whole) if folder.is_dir())


def room(who: Account, wanted: Path) -> Path:
    """A place for a folder of `who`: `wanted` where `who` can reach it, else one that stands for it.

    The folder itself is not made; the one above it is.

    Raises:
        EngineError: There is no such place.
    """
    if reaches(who, wanted.parent):
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if reaches(who, wanted.parent):
            return wanted
    digest = hashlib.sha256(str(wanted.resolve()).encode()).hexdigest()[:16]
    for top in (_LASTING, Path(tempfile.gettempdir()), _SHORT):
        if reaches(who, top) and (ours := _owned(top / f"genesys-lifecycle-{os.geteuid()}")):
            _sweep(ours)
            chosen = ours / f"{wanted.name}-{digest}"
            chosen.with_suffix(_STANDS_FOR).write_text(str(wanted.resolve()))
            return chosen
    raise EngineError(
        f"The user {who.name} can reach neither {wanted.parent} nor a temporary folder. Set DATABASE_URL."
    )


def _sweep(ours: Path) -> None:
    """Remove what stood for folders whose surroundings are gone: nobody can come back to it."""
    for note in ours.glob(f"*{_STANDS_FOR}"):
        if not Path(note.read_text()).parent.exists():
            forget(note.with_suffix(""))


def forget(place: Path) -> None:
    """Remove what `room` gave, and the note of what it stood for."""
    shutil.rmtree(place, ignore_errors=True)
    place.with_suffix(_STANDS_FOR).unlink(missing_ok=True)


def mirror(who: Account, source: Path, parts: tuple[str, ...]) -> Path:
    """`source` where `who` can read it: itself, or a copy of its `parts`, made once and compared on every call.

    Args:
        who: The reader.
        source: A folder.
        parts: Paths below it, folders or files, that are needed.

    Returns:
        The folder that holds `parts`.
    """
    if all(reaches(who, source / part) for part in parts):
        return source
    copy = room(who, source)
    if copy == source or _sizes(source, parts) == _sizes(copy, parts):
        return copy
    staging = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    for part in parts:
        if (source / part).is_dir():
            shutil.copytree(source / part, staging / part, symlinks=True)
        else:
            (staging / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / part, staging / part)
    _open_to_all(staging)
    return _put_in_place(staging, copy)


def _open_to_all(tree: Path) -> None:
    """Let everybody read, enter and run what its owner may: it may have been installed under a strict umask."""
    for path in (tree, *tree.rglob("*")):
        owner = path.stat().st_mode & 0o500
        path.chmod(owner | 0o200 | owner >> 3 | owner >> 6)


def _put_in_place(staging: Path, copy: Path) -> Path:
    """Rename `staging` to `copy`; an older copy is moved aside and removed."""
    old = staging.with_name(staging.name + "-old")
    if copy.exists():
        copy.rename(old)
    try:
        staging.rename(copy)
    except OSError:  # another process was faster, with the same contents
        shutil.rmtree(staging)
    shutil.rmtree(old, ignore_errors=True)
    return copy


def _sizes(folder: Path, parts: tuple[str, ...]) -> dict[str, int]:
    files = (file for part in parts for file in _files(folder / part))
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def _owned(folder: Path) -> Path | None:
    """`folder`, made by us and by nobody else; None when somebody else was there first."""
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return None
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return None
    folder.chmod(0o755)
    return folder


def _may_enter(who: Account, folder: Path) -> bool:
    found = folder.stat()
    if found.st_uid == who.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == who.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
