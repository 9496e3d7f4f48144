"""The spools of a process: its own, which takes records while Kafka is slow or away, and those of former processes.

Problem: a delivery is answered 200 when the record is fsynced on local disk. A spooled record must therefore outlive
the process, and a failed disk must not be trusted with further records.

Approach: each process opens a spool in a new folder, and adopts the folders of processes that have ended. Adopted
spools are only drained. The drainer reads from `to_drain`, and `maintain` does the rest once a second: closes the own
spool when a limit is reached, retires empty spools, opens a successor, and adopts further folders.

Invariants:

- A closed spool never takes a record again, and is drained, whether age or damage closed the spool.
- After a spool closed by age, size or a full file system, a new spool is opened once the old is empty. After an error
  of the disk none is opened in this process, since a disk may lose the next fsync too (`_RECOVERABLE`).
- A folder with a sign of damage is never deleted, but put aside as evidence (`_retire`).

Rule: the event loop makes no call of the file system; a thread does.

Trap: opening RocksDB takes about ten syncs and blocks the event loop all the same. While serving, a folder is opened
only where the disk has just synced a small file fast (docs/decisions/0015).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from schemas.spooled import Spooled
from services.adapters.spool import FolderInUse, OnReport, Spool, SpoolError, abandoned_folders
from services.adapters.spool.disk import fullness, sync_s
from services.core.delivery.kafka_breaker import BreakerState, KafkaBreaker
from services.ingress.telemetry import Telemetry

_RECOVERABLE: Final = frozenset({"age", "size", "high_water"})
"""Reasons of closing without an error of the disk."""

_END_S: Final = 5.0
"""Limit of waiting for a disk when the process ends."""

_FAST_SYNC_S: Final = 0.05
"""While serving, a folder is opened only on a disk that syncs a small file within this time."""

_WAITING_MAX_BYTES: Final = 64 << 20
"""Cap of records that wait for the disk, the same as for records in flight to Kafka."""

_HYSTERESIS: Final = 0.05
"""After `high_water` a spool is opened again only at a fullness this much lower, so that it does not flap."""

_ADOPT_AGAIN_S: Final = 5.0
"""Interval of adopting while a folder could not be opened."""

_ADOPT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Limits of a spool; the spool is closed when a limit is reached.

    Attributes:
        folder: Parent of all spools; declared to outlive process and machine.
        size_bytes: Greatest size of a spool.
        age_us: Greatest age of the oldest record, microseconds.
        high_water: Greatest fullness of the file system, 0 to 1.
    """

    folder: Path
    size_bytes: int
    age_us: int
    high_water: float


class Spools:
    """All spools of a process, and the breaker before Kafka. Use from the event loop of `open`.

    Attributes:
        limits: When a spool is closed.
        breaker: Decides if deliveries ask Kafka first.
        fault: The reason for which no records are taken; empty while records are taken.
        stalled: True after a record was not synced in time, until the disk reports on any record.
        unopened: Number of folders of former processes still unopened after an error.
    """

    def __init__(self, limits: SpoolLimits, telemetry: Telemetry, now_us: Callable[[], int]) -> None:
        """Starts without a spool; use `open`."""
        self.limits = limits
        self.breaker = KafkaBreaker()
        self.fault = ""
        self.stalled = False
        self.unopened = 0
        self._telemetry = telemetry
        self._now_us = now_us
        self._own: Spool | None = None
        self._former: list[Spool] = []
        self._logged_state = BreakerState.CLOSED
        self._adopted_s = 0.0

    @classmethod
    async def open(cls, limits: SpoolLimits, telemetry: Telemetry, now_us: Callable[[], int]) -> Self:
        """Adopts the folders of former processes and opens a spool; logs a failure, and goes on without the folder."""
        spools = cls(limits, telemetry, now_us)
        await spools._adopt()
        await spools._open_own()
        return spools

    @property
    def has_room(self) -> bool:
        """True if a record would be taken now."""
        own = self._own
        return (
            own is not None
            and not own.closed
            and not self.stalled
            and own.waiting_bytes < _WAITING_MAX_BYTES
            and own.size_bytes + own.waiting_bytes < self.limits.size_bytes
        )

    @property
    def _breaker_applies(self) -> bool:
        """True if any spool is open. Without a spool Kafka has no alternative, and no drainer probes."""
        return self._own is not None or bool(self._former)

    @property
    def preferred(self) -> bool:
        """True if records go to the spool before Kafka is asked: the breaker is not closed, and the spool has room."""
        return self.breaker.state is not BreakerState.CLOSED and self.has_room

    @property
    def depth(self) -> int:
        """Number of spooled records without an acknowledgement of Kafka."""
        return sum(spool.depth for spool in self.to_drain)

    @property
    def size_bytes(self) -> int:
        """Size of the spooled records."""
        return sum(spool.size_bytes for spool in self.to_drain)

    @property
    def oldest_age_s(self) -> float:
        """Age of the oldest spooled record, seconds; 0 where no record is spooled."""
        received = [spool.oldest_us for spool in self.to_drain if spool.oldest_us is not None]
        return max(0.0, (self._now_us() - min(received)) / 1e6) if received else 0.0

    @property
    def to_drain(self) -> list[Spool]:
        """All spools, the oldest first."""
        return self._former if self._own is None else [*self._former, self._own]

    def acked(self, now_s: float, took_s: float) -> None:
        """Reports an acknowledgement, in time or late, to the breaker.

        Args:
            now_s: The loop's clock, seconds.
            took_s: Time since the record was sent, seconds.
        """
        if not self._breaker_applies:
            return
        # Without room in the spool deliveries go to Kafka although the breaker is open, so their acknowledgement counts
        # as a probe.
        if self.breaker.state is not BreakerState.CLOSED and not self.has_room:
            self.breaker.probed(now_s, well=True)
        self.breaker.acked(now_s, took_s)
        if self.breaker.state is not self._logged_state:
            self.log_breaker()

    def failed(self, now_s: float) -> None:
        """Reports a record without an acknowledgement in time to the breaker; `now_s` is the loop's clock."""
        if self._breaker_applies:
            self.breaker.failed(now_s)
        if self.breaker.state is not self._logged_state:
            self.log_breaker()

    def log_breaker(self) -> None:
        """Logs a breaker that has opened or closed; `half_open` between is not logged."""
        state = self.breaker.state
        if state is not BreakerState.HALF_OPEN and state is not self._logged_state:
            self._logged_state = state
            self._telemetry.breaker(state)

    def append(self, record: Spooled, on_report: OnReport) -> None:
        """Appends a record to the own spool; check `has_room` first."""
        assert self._own is not None
        self._own.append(record, partial(self._on_report, on_report))

    async def maintain(self) -> None:
        """Closes, retires, opens and adopts spools as needed; called once a second."""
        own = self._own
        # Looked at twice: an error of the disk may close the spool meanwhile, and counts more than a limit.
        if own is not None and not own.closed and (reason := await self._closing_reason(own)) and not own.closed:
            own.close_to_new(reason)
            self._closed(reason)
        for spool in [spool for spool in self._former if not spool.depth]:
            await self._retire(spool)
            self._former.remove(spool)
        # `waiting` too: records appended before the closing are still being synced, and answered 200 after it.
        if own is not None and own.closed and not own.depth and not own.waiting:
            recoverable = own.closed in _RECOVERABLE
            await self._retire(own)
            self._own = None
            if recoverable:
                await self._open_own()
        elif own is None and self.fault in _RECOVERABLE:
            await self._open_own()
        await self._adopt_orphans()
        # With the last spool the drainer's probes end: a breaker that is open then would stay open.
        if not self._breaker_applies and self.breaker.state is not BreakerState.CLOSED:
            self.breaker.probed(asyncio.get_running_loop().time(), well=True)
            self.log_breaker()

    async def end(self) -> None:
        """Syncs waiting records and closes all spools, within 5 s; the next start drains the rest."""
        await asyncio.gather(*(self._end(spool) for spool in self.to_drain))

    async def _end(self, spool: Spool) -> None:
        try:
            async with asyncio.timeout(_END_S):
                await spool.end()
        except (SpoolError, TimeoutError) as error:
            fault = str(error) or "its disk does not answer"
            self._telemetry.spool("spool left", path=str(spool.path), why=fault)

    def _on_report(self, on_report: OnReport, kept: bool) -> None:  # noqa: FBT001 - a report's one word
        self.stalled = False
        on_report(kept)

    async def _adopt(self) -> None:
        """Opens the folders of ended processes, for draining."""
        unopened = 0
        try:
            found = await asyncio.to_thread(abandoned_folders, self.limits.folder)
        except SpoolError as error:
            self._telemetry.spool("spool refused", path=str(self.limits.folder), why=str(error))
            return
        for folder in found:
            try:
                spool = await Spool.adopt(folder, self._telemetry.spool_closed)
            except FolderInUse:
                continue  # another process has adopted this folder meanwhile
            except SpoolError as error:
                unopened += 1
                self._telemetry.spool("spool left", path=str(folder), why=str(error))
            else:
                self._telemetry.spool("spool found", path=str(folder), records=spool.depth, damaged=spool.damaged)
                self._former.append(spool)
        self.unopened = unopened

    async def _adopt_orphans(self) -> None:
        """Adopts folders of processes that have ended since, and tries unopened folders again."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._adopted_s < (_ADOPT_AGAIN_S if self.unopened else _ADOPT_S):
            return
        self._adopted_s = now_s
        if await asyncio.to_thread(sync_s, self.limits.folder) < _FAST_SYNC_S:
            await self._adopt()

    async def _open_own(self) -> None:
        """Opens a new spool, unless the file system is too full or, while serving, too slow."""
        most = self.limits.high_water - (_HYSTERESIS if self.fault == "high_water" else 0)
        if await asyncio.to_thread(fullness, self.limits.folder) >= most:
            if self.fault != "high_water":
                self._closed("high_water")
            return
        # `fault` is empty at the start only, when nothing is served yet and a slow disk holds nobody up.
        if self.fault and await asyncio.to_thread(sync_s, self.limits.folder) >= _FAST_SYNC_S:
            return
        try:
            self._own = await Spool.open(self.limits.folder, self._closed)
            self.fault = ""
        except SpoolError as error:
            self._telemetry.spool("spool refused", path=str(self.limits.folder), why=str(error))
            self._closed("open")

    async def _retire(self, spool: Spool) -> None:
        """Removes a drained spool, or puts the folder aside as evidence where the disk failed."""
        is_evidence = bool(spool.damaged) or spool.closed not in _RECOVERABLE | {"former"}
        try:
            if is_evidence:
                await spool.move_aside(spool.closed)
                self._telemetry.spool("spool aside", path=str(spool.path), reason=spool.closed, damaged=spool.damaged)
            else:
                await spool.end()
        except (SpoolError, OSError) as error:
            self._telemetry.spool("spool left", path=str(spool.path), why=str(error))

    async def _closing_reason(self, own: Spool) -> str:
        """Returns the limit reached by the own spool; empty text for none."""
        if not await asyncio.to_thread(own.path.exists):
            return "gone"  # the folder was removed: records written now would end with this process
        if own.size_bytes + own.waiting_bytes >= self.limits.size_bytes:
            return "size"
        if own.oldest_us is not None and self._now_us() - own.oldest_us >= self.limits.age_us:
            return "age"
        return "high_water" if await asyncio.to_thread(fullness, self.limits.folder) >= self.limits.high_water else ""

    def _closed(self, reason: str) -> None:
        self.fault = reason
        self._telemetry.spool_closed(reason)
