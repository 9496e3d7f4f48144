"""Memory of the reconciler between runs: small JSON files and a lock in the state folder.

`sights.json` has, per key, the credentials with the last sight and the claim waiting for a second sight. Losing this
file loses no tenant: no absence counts before a new sight of the key.

`admissions.json` has, per organisation, whether the first comparison is done or held (core/reconcile/onboarding.py).
After a loss of this file an organisation without tenants is judged again.

`refusals.json` has the removals that operators refused. After a loss of this file a refused removal waits at the brake
again, or is published if no more tenants are absent than one run may remove.

`orphans.json` has the time at which each orphan outside was first seen. After a loss of this file an orphan must be
seen twice again.

`last_run.json` has the result of the last whole run, of any process. The service sets its metrics from all files, so a
run by an operator (`lifecycle reconcile --now`) shows in the metrics of the service.

Rule: a file is replaced as a whole (new file, fsync, rename), so a crash leaves the old file or the new one.
`hold_lock` must be held from the load to the last save of a run: the service and an operator's command share the
folder, and a save of one process would overwrite the sights of the other.

Rule: every method that reads or writes a file blocks. On an event loop a read runs in a thread, and a write runs by
`to_end`: with 50,000 sights a write takes seconds on a busy machine, and the loop answers `/metrics` meanwhile.
"""

import asyncio
import fcntl
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from schemas.times import FIRST_US, LAST_US
from schemas.values import Key
from services.core.reconcile.onboarding import OrganisationState, OrganisationStates
from services.core.reconcile.reconcile import Doubt, Memory, Sight
from services.core.rulings import RefusedRemovals

P = ParamSpec("P")
T = TypeVar("T")

_POLL_S: Final = 0.1
"""Seconds between two tries to take the lock."""
_SLICE: Final = 500
"""Sights that are encoded in one step: the encoder lets no other thread run meanwhile."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """Result of the last whole run, a run over all organisations and keys.

    Attributes:
        ended_us: End of the run, microseconds UTC; 0 before the first run.
        succeeded_us: End of the last successful whole run, microseconds UTC: nothing was left unread, unwritten or held
            back by the brake.
        read: Number of organisations read.
        unanswered: Number of organisations with credentials, but without a complete reading.
        unread: Number of keys not read, or read in part.
    """

    ended_us: int = 0
    succeeded_us: int = 0
    read: int = 0
    unanswered: int = 0
    unread: int = 0


class Sights:
    """The files of one state folder, shared by the service and `lifecycle reconcile`."""

    def __init__(self, state_dir: Path) -> None:
        """Creates the folder `reconciler` if it is missing.

        Args:
            state_dir: State folder of the installation.

        Raises:
            OSError: the folder cannot be made.
        """
        self._folder = state_dir / "reconciler"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = self._folder / "sights.json"
        self._admissions_file = self._folder / "admissions.json"
        self._last_file = self._folder / "last_run.json"
        self._refusals_file = self._folder / "refusals.json"
        self._orphans_file = self._folder / "orphans.json"
        # The file as last parsed or written, and its content: the service loads every second.
        self._cached: tuple[tuple[int, ...], dict[Key, Sight]] = ((), {})

    @asynccontextmanager
    async def hold_lock(self) -> AsyncIterator[None]:
        """Holds the lock of the folder; waits while another process holds the lock."""
        with (self._folder / "lock").open("w") as lock:
            # Polls, because a blocking flock would stop the event loop, and no event tells when another process ends.
            while not _locked(lock.fileno()):  # noqa: ASYNC110 - another process wakes nobody
                await asyncio.sleep(_POLL_S)
            yield  # closing the file releases the lock, also when the process dies

    def load(self) -> dict[Key, Sight]:
        """Returns the memory; empty if the file is missing or is not a memory.

        Raises:
            OSError: the file exists and cannot be read. An unreadable disk must not look like an empty memory.
        """
        try:
            identity = self._identity()
            if identity != self._cached[0]:
                content = json.loads(self._file.read_bytes())
                self._cached = identity, {key: _sight(stored) for key, stored in content.items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return dict(self._cached[1])

    def save(self, memory: Memory) -> None:
        """Replaces the memory, as a whole or not at all; writes nothing if the file has the same content already.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        try:
            if self._cached[0] == self._identity() and self._cached[1] == memory:
                return
        except FileNotFoundError:
            pass
        # Only the holder of the lock writes: no other writer has the name, and the file is still this one.
        _replace(self._file, self._file.with_suffix(".new"), _pieces(memory))
        self._cached = self._identity(), dict(memory)

    def _identity(self) -> tuple[int, ...]:
        """Returns modification time, inode and size of the file with the sights.

        Raises:
            OSError: the file is missing or cannot be looked at.
        """
        state = self._file.stat()
        return state.st_mtime_ns, state.st_ino, state.st_size

    def admissions(self) -> dict[str, OrganisationState]:
        """Returns the state of each organisation; empty if the file is missing or is not a memory.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            content = json.loads(self._admissions_file.read_bytes())
            return {org_id: OrganisationState(state) for org_id, state in content.items()}
        except (FileNotFoundError, ValueError, AttributeError):
            return {}

    def save_admissions(self, admissions: OrganisationStates) -> None:
        """Replaces the states of the organisations, as a whole or not at all.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        replace_json(self._admissions_file, dict(admissions))

    def refusals(self) -> tuple[RefusedRemovals, ...]:
        """Returns the stored refusals, expired ones too; empty if the file is missing or is not a memory.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            content = json.loads(self._refusals_file.read_bytes())
            return tuple(
                RefusedRemovals(
                    digest=str(stored["digest"]),
                    by=str(stored["by"]),
                    reason=str(stored["reason"]),
                    keys=frozenset(map(str, stored["keys"])),
                    expires_us=stored_us(stored["expires_us"]),
                )
                for stored in content
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ()

    def save_refusals(self, refusals: Iterable[RefusedRemovals]) -> None:
        """Replaces the refusals, as a whole or not at all.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        replace_json(self._refusals_file, [asdict(one) | {"keys": sorted(one.keys)} for one in refusals])

    def orphans(self) -> dict[str, int]:
        """Returns name and time of the first sight of each orphan; empty if the file is missing or is not a memory.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            return {str(name): stored_us(at_us) for name, at_us in json.loads(self._orphans_file.read_bytes()).items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def save_orphans(self, first_seen: Mapping[str, int]) -> None:
        """Replaces the first sights of orphans, as a whole or not at all.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        replace_json(self._orphans_file, dict(first_seen))

    def last(self) -> LastRun:
        """Returns the result of the last whole run; zeros if the file is missing or is not a result.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            content = json.loads(self._last_file.read_bytes())
            return LastRun(**{name: stored_us(content[name]) for name in LastRun.__dataclass_fields__})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return LastRun()

    def save_last(self, last: LastRun) -> None:
        """Replaces the result of the last whole run, as a whole or not at all.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        replace_json(self._last_file, asdict(last))


def replace_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Replaces a JSON file, as a whole or not at all.

    Raises:
        OSError: the file cannot be written; the former file stays.
    """
    # Not `json.dump`, which encodes in Python and takes ten times as long.
    # A name of its own: with a shared one a second writer renames, or fills, the file of the first.
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _replace(path, fresh, (json.dumps(content, separators=(",", ":")),))


async def to_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a blocking function in a thread, and returns only after its end, also when cancelled meanwhile.

    A thread cannot be cancelled: without the wait a cancelled run would release the lock under a write that goes on.

    Raises:
        CancelledError: the caller was cancelled; the function has ended.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # Retrieved, because an unread exception is reported as a fault of the program.
        work.exception()
        raise cancelled
    return work.result()


def _replace(path: Path, fresh: Path, pieces: Iterable[str]) -> None:
    """Replaces a text file by the pieces, as a whole or not at all.

    Args:
        path: The file.
        fresh: Name of the file until it is whole; in the same folder.
        pieces: The text.

    Raises:
        OSError: the file cannot be written; the former file stays.
    """
    try:
        with fresh.open("w") as file:
            file.writelines(pieces)
            file.flush()
            # Before the rename: else a power loss could leave the new name with an empty file.
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _pieces(memory: Memory) -> Iterator[str]:
    """Yields the JSON object of the sights in pieces: as one text it would need its size thrice over."""
    sights = iter(memory.items())
    before = "{"
    while part := {key: _stored(sight) for key, sight in islice(sights, _SLICE)}:
        yield before + json.dumps(part, separators=(",", ":"))[1:-1]
        before = ","
    yield "}" if before == "," else "{}"


def stored_us(value: object) -> int:
    """Returns a time as stored, microseconds UTC.

    Raises:
        ValueError: the value is no whole number, or lies outside the years 1 to 9999: the file is damaged.
    """
    if not isinstance(value, int) or not FIRST_US <= value <= LAST_US:
        raise ValueError("not a time in microseconds")
    return value


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stored(sight: Sight) -> dict[str, Any]:
    doubt = sight.doubt
    return {
        "seen_by": sight.seen_by,
        "doubt": None if doubt is None else {"claim": doubt.claim, "since_us": doubt.since_us},
        "observed_at_us": sight.observed_at_us,
    }


def _sight(stored: Mapping[str, Any]) -> Sight:
    doubt = stored["doubt"]
    return Sight(
        # A single text for all sights of the same credentials.
        seen_by=None if stored["seen_by"] is None else sys.intern(str(stored["seen_by"])),
        doubt=None if doubt is None else Doubt(str(doubt["claim"]), stored_us(doubt["since_us"])),
        observed_at_us=stored_us(stored["observed_at_us"]),
    )
