"""Records kept on local disk while Kafka is away: fsynced before it says so, read back oldest first.

One thread does everything that touches the disk, and takes all records that wait at once: one sync and one wake-up of
the loop for many. Rule: a record is reported as kept after its sync returned, and not a moment before; after the first
error of the disk nothing is written any more, and what was kept before it can still be read.
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
from services.adapters.spool.index import CORRUPT, Opened, make, take
from services.adapters.spool.records import BATCH_BYTES, DiskError
from services.adapters.spool.thread import Thread

_BATCH: Final = 1_000

OnReport = Callable[[bool], None]
"""Called on the event loop: whether the record is on disk, synced. If not, it may be there all the same."""

OnClosed = Callable[[str], None]
"""Called on the event loop, once, when the disk or what is on it closed the spool; with the reason."""

_Waiting = tuple[int, bytes, int, OnReport]
"""Number, encoded, time of receipt, and whom to tell."""


class Spool:
    """One folder of records. Use from the loop that opened it.

    Attributes:
        damaged: Records known to be missing or bad; at least 1 where anything on the disk was damaged.
        waiting: Records appended and not yet reported on.
        waiting_bytes: Their size as encoded.
    """

    def __init__(self, thread: Thread, opened: Opened, on_closed: OnClosed) -> None:
        """Go on with what was opened; see `open` and `adopt`."""
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._folder = opened.folder
        self._records = opened.records
        self._stock = opened.stock
        self._on_closed = on_closed
        self.damaged = opened.damaged
        self.waiting = 0
        self.waiting_bytes = 0
        self._appended: deque[_Waiting] = deque()
        self._reason = ""
        self._fault = ""
        self._evidence = opened.evidence
        # Set on one side and read on the other: a wake-up too many does no harm, and a write too few neither.
        self._frozen = opened.evidence
        self._committing = False
        self._trimming = False
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, parent: Path, on_closed: OnClosed) -> Self:
        """Open a new one in a folder of its own. Holds the process up while the disk syncs: do it before serving.

        Raises:
            SpoolError: it cannot be made; says why.
        """
        return await cls._begin(partial(make, parent, now_us()), on_closed)

    @classmethod
    async def adopt(cls, folder: Path, on_closed: OnClosed) -> Self:
        """Open one that was left behind, to drain it: it takes no records. Holds the process up like `open`.

        Where RocksDB cannot open it any more, what can be read is copied into a new folder and the old one put aside;
        `closed` is then "corrupt", as it is when a number is missing, or a record is not what was written.

        Raises:
            Taken: another process has it.
            NewerVersion: a later version of this program wrote it.
            SpoolError: it cannot be opened; says why. It stays as it is.
        """
        spool = await cls._begin(partial(take, folder), on_closed)
        spool.close_to_new("former")
        if spool.damaged:
            spool._shut(CORRUPT)  # noqa: SLF001 - our own
        return spool

    @classmethod
    async def _begin(cls, opening: Callable[[], Opened], on_closed: OnClosed) -> Self:
        thread = Thread()
        try:
            return cls(thread, await thread.ask(opening), on_closed)
        except BaseException:
            thread.stop()
            raise

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder.path

    @property
    def closed(self) -> str:
        """Why it takes no more records; empty while it does. `full`, `write`, `fsync`, `corrupt`, or the caller's."""
        return self._fault or self._reason

    @property
    def depth(self) -> int:
        """Records kept and not deleted."""
        return self._stock.depth

    @property
    def size_bytes(self) -> int:
        """Their size as encoded."""
        return self._stock.size_bytes

    @property
    def oldest_us(self) -> int | None:
        """When the oldest of them was received, microseconds UTC."""
        return self._stock.oldest_us

    def append(self, record: Spooled, on_report: OnReport) -> None:
        """Keep one record; returns at once, and `on_report` is never called before it has."""
        if self.closed:
            self._loop.call_soon(on_report, False)
            return
        number = self._stock.next + self.waiting
        raw = encode(number, record)
        self.waiting += 1
        self.waiting_bytes += len(raw)
        self._appended.append((number, raw, record.received_us, on_report))
        self._commit_soon()

    async def oldest(self, most: int, size_bytes: int, without: Container[int] = ()) -> list[tuple[int, Spooled]]:
        """The oldest records with their numbers, in order; the same again until they are deleted.

        What cannot be read is passed over, counted as damage, and closes the spool.

        Args:
            most: At most so many.
            size_bytes: At most so large together, as encoded; one is given whatever its size.
            without: Numbers to pass over.
        """
        while self._ending is None and (numbers := self._stock.oldest(most, size_bytes, without)):
            read = await self._thread.ask(partial(self._read, numbers))
            live = [(number, record) for number, record in zip(numbers, read, strict=True) if number in self._stock]
            bad = [number for number, record in live if record is None]
            if bad:
                self.damaged += len(bad)
                self._evidence = self._frozen = True
                self._shut(CORRUPT)
                self.delete(bad)
            if good := [(number, record) for number, record in live if record is not None]:
                return good
        return []

    def delete(self, numbers: Iterable[int]) -> None:
        """Forget records for good. On disk it is done from the front on, later, and never once the disk failed."""
        front = self._stock.front
        for number in numbers:
            self._stock.drop(number)
        if self._stock.front > front and not (self._frozen or self._trimming or self._ending):
            self._trimming = True
            self._thread.do(self._trim)

    def close_to_new(self, reason: str) -> None:
        """Take no more records. Those that wait are still kept, and all can be read."""
        self._reason = self._reason or reason

    async def end(self) -> None:
        """Keep what waits, and close. Its folder goes when all was deleted (aside, if damaged), else it is left behind.

        Raises:
            SpoolError: what was damaged could not be put aside.
        """
        await self._end_with(self._fate)

    async def aside(self, reason: str) -> None:
        """Keep what waits, close, and move the folder to `aside/NAME-reason` beside it (`path`), and leave it alone.

        Raises:
            SpoolError: it could not be moved.
        """
        await self._end_with(lambda: partial(self._folder.aside, reason))

    async def _end_with(self, chosen: Callable[[], Callable[[], None]]) -> None:
        """End once; who comes later waits for the same end, and a cancelled caller leaves no half of it."""
        if self._ending is None:
            self.close_to_new("ended")
            self._ending = asyncio.create_task(self._finished(chosen), name="spool-end")
        await asyncio.shield(self._ending)

    def _fate(self) -> Callable[[], None]:
        """What becomes of the folder, once nothing is written any more."""
        if self.depth:
            return self._folder.release
        return partial(self._folder.aside, CORRUPT) if self._evidence else self._folder.remove

    async def _finished(self, chosen: Callable[[], Callable[[], None]]) -> None:
        try:
            await self._thread.ask(self._finish)
            await self._thread.ask(chosen())
        finally:
            self._thread.stop()

    def _commit_soon(self) -> None:
        if not self._committing:
            self._committing = True
            self._thread.do(self._commit)

    def _settle(self, batch: list[_Waiting], kept: bool) -> None:  # noqa: FBT001 - what `on_report` is told
        for _, raw, at_us, _ in batch:
            self.waiting -= 1
            self.waiting_bytes -= len(raw)
            if kept:
                self._stock.add(len(raw), at_us)
        for *_, on_report in batch:
            on_report(kept)

    def _shut(self, reason: str) -> None:
        if not self._fault:
            self._fault = reason
            self._on_closed(reason)

    # What follows runs in the thread.

    def _commit(self) -> None:
        self._committing = False
        batch = self._batch()
        if batch:
            kept = self._write(partial(self._records.commit, [(number, raw) for number, raw, _, _ in batch]))
            self._tell(partial(self._settle, batch, kept))
        if self._appended:
            self._commit_soon()  # behind whoever wants to read meanwhile

    def _batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._appended and len(batch) < _BATCH:
            size += len(self._appended[0][1])
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._appended.popleft())
        return batch

    def _trim(self) -> None:
        self._trimming = False
        self._write(partial(self._records.trim, self._stock.front))

    def _write(self, write: Callable[[], None]) -> bool:
        """Whether it was written; never again after the first time that it was not."""
        if self._frozen:
            return False
        try:
            write()
        except DiskError as error:
            self._frozen = True
            self._tell(partial(self._shut, error.reason))
            return False
        return True

    def _read(self, numbers: list[int]) -> list[Spooled | None]:
        return [_decoded(number, raw) for number, raw in zip(numbers, self._records.read(numbers), strict=True)]

    def _finish(self) -> None:
        while self._appended:
            self._commit()
        self._records.close()

    def _tell(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody asks any more
            self._loop.call_soon_threadsafe(call)


def _decoded(number: int, raw: bytes | None) -> Spooled | None:
    try:
        return None if raw is None else decode(number, raw)
    except (Corrupt, NewerFormat):
        return None
