"""What the reconciler remembers between runs: two small files, one run at a time.

Rule: one file says whom Genesys has shown us and which claims wait for a second sight. Losing it loses no tenant:
absence then counts for nobody until they were seen again. The other says how the last whole run ended, whichever
process made it: the service's metrics are told from both, so that a run of an operator's shows in them.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from schemas.values import Key
from services.core.reconcile.reconcile import Doubt, Memory, Sight

_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run that left nobody out.

    Attributes:
        ended_us: When it ended; 0 before the first.
        succeeded_us: When the last one ended that left nothing unread, unwritten or held back.
        read: Organisations that were read.
        unanswered: Organisations with credentials that were not read, or not whole.
        unread: Keys that could not be read, or not whole.
    """

    ended_us: int = 0
    succeeded_us: int = 0
    read: int = 0
    unanswered: int = 0
    unread: int = 0


class Sights:
    """The memory of one state folder, shared by the service and `lifecycle reconcile`."""

    def __init__(self, state_dir: Path) -> None:
        """Make the folder.

        Args:
            state_dir: The installation's; the reconciler keeps to a folder of its own in it.
        """
        self._folder = state_dir / "reconciler"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = self._folder / "sights.json"
        self._last_file = self._folder / "last_run.json"
        self._read: tuple[int, int, dict[Key, Sight]] = (0, 0, {})

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no other process of this folder runs, and keep the others waiting."""
        with (self._folder / "lock").open("w") as lock:
            while not _taken(lock.fileno()):  # noqa: ASYNC110 - another process wakes nobody
                await asyncio.sleep(_POLL_S)
            yield

    def load(self) -> dict[Key, Sight]:
        """Read the memory; a file that cannot be read as one is forgotten."""
        try:
            state = self._file.stat()
            if (state.st_mtime_ns, state.st_ino) != self._read[:2]:
                kept = json.loads(self._file.read_bytes())
                self._read = (state.st_mtime_ns, state.st_ino, {key: _sight(one) for key, one in kept.items()})
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return dict(self._read[2])

    def save(self, memory: Memory) -> None:
        """Replace the file, whole or not at all."""
        _replace(self._file, {key: _kept(sight) for key, sight in memory.items()})

    def last(self) -> LastRun:
        """Read how the last whole run ended; a file that cannot be read as one is forgotten."""
        try:
            kept = json.loads(self._last_file.read_bytes())
            return LastRun(**{name: int(kept[name]) for name in LastRun.__dataclass_fields__})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return LastRun()

    def save_last(self, last: LastRun) -> None:
        """Replace the file, whole or not at all."""
        _replace(self._last_file, asdict(last))


def _replace(path: Path, content: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        json.dump(content, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kept(sight: Sight) -> dict[str, Any]:
    doubt = sight.doubt
    return {
        "seen_by": sight.seen_by,
        "doubt": None if doubt is None else {"claim": doubt.claim, "since_us": doubt.since_us},
        "observed_at_us": sight.observed_at_us,
    }


def _sight(kept: Mapping[str, Any]) -> Sight:
    doubt = kept["doubt"]
    return Sight(
        seen_by=None if kept["seen_by"] is None else str(kept["seen_by"]),
        doubt=None if doubt is None else Doubt(str(doubt["claim"]), int(doubt["since_us"])),
        observed_at_us=int(kept["observed_at_us"]),
    )
