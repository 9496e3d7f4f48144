"""The spool's asyncio interface: appends records, reports each after the sync, and returns the oldest to the drainer.

Rules:
- A record is reported as kept only after the sync returned.
- After the first disk error nothing more is written. Records kept before the error can still be read.

Approach: only the event loop changes the index and the public attributes. A worker thread makes every call to the
disk; see `thread.py`. The thread takes all waiting records at once: many records share a single sync and a single
wake-up of the loop. Results return to the loop through `call_soon_threadsafe`.

Two threads share state without a lock, and the GIL makes this safe:
- `_appended` is a deque: the loop appends on the right, the thread pops on the left.
- `_committing` and `_trimming` are set before the call is submitted, and cleared by the thread before the call
  reads its input. A lost race submits a superfluous call without work to do. Clearing after the work could leave
  records appended in between without a commit.
- `_writes_stopped` is only ever set, never cleared.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

from schemas.spooled import Corrupt, NewerFormat, Spooled, decode, encode
from services.adapters.process.clock import now_us
from services.adapters.spool.index import CORRUPT, Opened, adopt, create
from services.adapters.spool.records import BATCH_BYTES, DiskError
from services.adapters.spool.thread import Thread

_BATCH_RECORDS: Final = 1_000
"""Greatest count of records in one sync."""

OnReport = Callable[[bool], None]
"""Called on the event loop with True if the record is synced on disk; with False, the record may be on disk or not."""

OnClosed = Callable[[str], None]
"""Called on the event loop at most once, with the reason, when a disk error or damaged data closes the spool."""

_Waiting = tuple[int, bytes, int, OnReport]
"""Number, encoded record, receive time (µs UTC), and the callback."""


class Spool:
    """One folder of records. Use from the event loop that opened the spool.

    Attributes:
        damaged: Records known to be missing or bad; at least 1 if any file was damaged.
        waiting: Records appended and not yet reported.
        waiting_bytes: Encoded size of the waiting records.
    """

    def __init__(self, thread: Thread, opened: Opened, on_closed: OnClosed) -> None:
        """Wrap an opened database; callers use `open` or `adopt` instead."""
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._folder = opened.folder
        self._records = opened.records
        self._index = opened.index
        self._on_closed = on_closed
        self.damaged = opened.damaged
        self.waiting = 0
        self.waiting_bytes = 0
        self._appended: deque[_Waiting] = deque()
        self._reason = ""  # given by the caller of `close_to_new`
        self._fault = ""  # given by the disk; takes precedence
        self._evidence = opened.evidence
        # A damaged folder is evidence from the start: not even deletions are written to it.
        self._writes_stopped = opened.evidence
        self._committing = False
        self._trimming = False
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, parent: Path, on_closed: OnClosed) -> Self:
        """Create and open an empty spool in a new folder below `parent`.

        Opening holds the GIL for about ten syncs of the disk: call this before serving.

        Raises:
            SpoolError: the spool cannot be created; the text gives the reason.
        """
        return await cls._open_in_thread(partial(create, parent, now_us()), on_closed)

    @classmethod
    async def adopt(cls, folder: Path, on_closed: OnClosed) -> Self:
        """Open a spool left behind by a dead process, for draining only. Holds the GIL like `open`.

        If RocksDB cannot open the database, its readable records are copied into a new folder and the old folder moves
        to `aside/`. `closed` is "corrupt" after such a copy, and also if a record is missing or bad.

        Raises:
            FolderInUse: a running process owns the folder, or the folder is gone.
            NewerVersion: a later version of this program wrote the spool.
            SpoolError: the spool cannot be opened; the text gives the reason. The folder stays in place.
        """
        spool = await cls._open_in_thread(partial(adopt, folder), on_closed)
        spool.close_to_new("former")
        if spool.damaged:
            spool._close_on_fault(CORRUPT)  # noqa: SLF001 - an instance of this class
        return spool

    @classmethod
    async def _open_in_thread(cls, opening: Callable[[], Opened], on_closed: OnClosed) -> Self:
        thread = Thread()
        try:
            return cls(thread, await thread.run(opening), on_closed)
        except BaseException:
            thread.stop()
            raise

    @property
    def path(self) -> Path:
        """The spool's folder; changes when the folder moves to `aside/`."""
        return self._folder.path

    @property
    def closed(self) -> str:
        """The reason why new records are refused; empty while records are accepted.

        A disk error gives `full`, `write`, `fsync` or `corrupt`; otherwise the reason is that of `close_to_new`.
        """
        return self._fault or self._reason

    @property
    def depth(self) -> int:
        """The count of records kept and not deleted."""
        return self._index.depth

    @property
    def size_bytes(self) -> int:
        """The encoded size of the records kept and not deleted."""
        return self._index.size_bytes

    @property
    def oldest_us(self) -> int | None:
        """The receive time of the oldest kept record, microseconds UTC; None if the spool is empty."""
        return self._index.oldest_us

    def append(self, record: Spooled, on_report: OnReport) -> None:
        """Queue one record for the disk; `on_report` is called later, never before this method returns."""
        if self.closed:
            self._loop.call_soon(on_report, False)
            return
        # Waiting records have numbers and are not in the index yet, since they may still fail.
        number = self._index.next + self.waiting
        raw = encode(number, record)
        self.waiting += 1
        self.waiting_bytes += len(raw)
        self._appended.append((number, raw, record.received_us, on_report))
        self._commit_soon()

    async def oldest(self, most: int, size_bytes: int, without: Container[int] = ()) -> list[tuple[int, Spooled]]:
        """Return the oldest records with their numbers, in order; repeats the same records until deleted.

        An unreadable record is skipped, counted in `damaged`, and closes the spool.

        Args:
            most: Greatest count of records.
            size_bytes: Greatest total encoded size; the first record is returned whatever its size.
            without: Numbers to skip.
        """
        # The loop ends: a round without a good record has deleted all its bad ones from the index.
        while self._ending is None and (numbers := self._index.oldest(most, size_bytes, without)):
            read = await self._thread.run(partial(self._read, numbers))
            # A record deleted during the read may already be trimmed on disk, which is no damage.
            live = [(number, record) for number, record in zip(numbers, read, strict=True) if number in self._index]
            bad = [number for number, record in live if record is None]
            if bad:
                self.damaged += len(bad)
                self._evidence = self._writes_stopped = True
                self._close_on_fault(CORRUPT)
                self.delete(bad)
            if good := [(number, record) for number, record in live if record is not None]:
                return good
        return []

    def delete(self, numbers: Iterable[int]) -> None:
        """Delete records from the index now, and from the disk later.

        The disk deletes at the front only: a record behind an undeleted record returns after a restart. A damaged or
        failed disk deletes nothing.
        """
        front = self._index.front
        for number in numbers:
            self._index.drop(number)
        if self._index.front > front and not (self._writes_stopped or self._trimming or self._ending):
            self._trimming = True
            self._thread.submit(self._trim)

    def close_to_new(self, reason: str) -> None:
        """Refuse new records from now on; waiting records are still written, and kept records can be read."""
        self._reason = self._reason or reason

    async def end(self) -> None:
        """Write the waiting records, close the database, and dispose of the folder.

        A folder with records left is released, for a later adoption. An empty folder is removed, or moved to `aside/`
        if damaged.

        Raises:
            SpoolError: the damaged folder could not be moved.
        """
        await self._end_once(self._disposal)

    async def move_aside(self, reason: str) -> None:
        """Write the waiting records, close the database, and move the folder to `aside/NAME-reason` (then in `path`).

        Raises:
            SpoolError: the folder could not be moved.
        """
        await self._end_once(lambda: partial(self._folder.move_aside, reason))

    async def _end_once(self, choose: Callable[[], Callable[[], None]]) -> None:
        """Start the end, or join the one under way; a cancelled caller does not interrupt the end."""
        if self._ending is None:
            self.close_to_new("ended")
            self._ending = asyncio.create_task(self._run_end(choose), name="spool-end")
        await asyncio.shield(self._ending)

    def _disposal(self) -> Callable[[], None]:
        """Return the call that releases, removes or moves the folder; valid only after the last write."""
        if self.depth:
            return self._folder.release
        return partial(self._folder.move_aside, CORRUPT) if self._evidence else self._folder.remove

    async def _run_end(self, choose: Callable[[], Callable[[], None]]) -> None:
        try:
            await self._thread.run(self._close_records)
            # Chosen only now: the last commits changed `depth`, and their reports reached the loop before this result.
            await self._thread.run(choose())
        finally:
            self._thread.stop()

    def _commit_soon(self) -> None:
        if not self._committing:
            self._committing = True
            self._thread.submit(self._commit)

    def _report(self, batch: list[_Waiting], kept: bool) -> None:  # noqa: FBT001 - the argument of `on_report`
        """Enter a batch into the index if it was kept, then call its callbacks. Runs on the loop."""
        for _, raw, at_us, _ in batch:
            self.waiting -= 1
            self.waiting_bytes -= len(raw)
            if kept:
                self._index.add(len(raw), at_us)
        # Only now: a callback may append or delete, and must find the index complete.
        for *_, on_report in batch:
            on_report(kept)

    def _close_on_fault(self, reason: str) -> None:
        if not self._fault:
            self._fault = reason
            self._on_closed(reason)

    # The methods below run in the thread.

    def _commit(self) -> None:
        # Cleared before the batch is taken: a record appended after the last pop must submit another commit.
        self._committing = False
        batch = self._batch()
        if batch:
            kept = self._write(partial(self._records.commit, [(number, raw) for number, raw, _, _ in batch]))
            self._call_on_loop(partial(self._report, batch, kept))
        if self._appended:
            self._commit_soon()  # as a new call in the queue, so that a waiting read gets its turn first

    def _batch(self) -> list[_Waiting]:
        """Pop the next records, at most 1,000 and 4 MiB, or one larger record."""
        batch: list[_Waiting] = []
        size = 0
        while self._appended and len(batch) < _BATCH_RECORDS:
            size += len(self._appended[0][1])
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._appended.popleft())
        return batch

    def _trim(self) -> None:
        self._trimming = False
        self._write(partial(self._records.trim, self._index.front))

    def _write(self, write: Callable[[], None]) -> bool:
        """Return True if the write succeeded; after the first failure return False without trying."""
        if self._writes_stopped:
            return False
        try:
            write()
        except DiskError as error:
            # Before the loop learns of the fault: commits already in the queue must not write.
            self._writes_stopped = True
            self._call_on_loop(partial(self._close_on_fault, error.reason))
            return False
        return True

    def _read(self, numbers: list[int]) -> list[Spooled | None]:
        return [_decoded(number, raw) for number, raw in zip(numbers, self._records.read(numbers), strict=True)]

    def _close_records(self) -> None:
        """Write the waiting records and close the database."""
        while self._appended:
            self._commit()
        self._records.close()

    def _call_on_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: no caller waits for the result any more
            self._loop.call_soon_threadsafe(call)


def _decoded(number: int, raw: bytes | None) -> Spooled | None:
    """Decode a record; None if the record is missing, bad, or of a later format."""
    try:
        return None if raw is None else decode(number, raw)
    except (Corrupt, NewerFormat):
        return None
