"""The spools of one process: its own, which takes records while Kafka is slow or away, and those that former ones left.

Rule: a spool that was closed never takes a record again, and is drained whatever closed it. One that its age, its size
or a filling disk closed is followed by a new one once it is empty; one that the disk betrayed has no successor in this
process: who loses an fsync today loses another tomorrow.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from schemas.spooled import Spooled
from services.adapters.spool import FolderTaken, OnReport, Spool, SpoolError, left_behind
from services.adapters.spool.disk import fullness, sync_s
from services.core.delivery.kafka_breaker import BreakerState, KafkaBreaker
from services.ingress.telemetry import Telemetry

_PASSING: Final = frozenset({"age", "size", "high_water"})
"""Reasons that an empty spool does not have."""

_END_S: Final = 5.0
"""No disk is waited for longer, at the end."""

_SWIFT_S: Final = 0.05
"""Opening a folder takes about ten syncs and holds the loop up meanwhile: only on a disk that answers quickly."""

_WAITING_MAX_BYTES: Final = 64 << 20
"""What may wait for the disk, as what may be in flight to Kafka."""

_AGAIN_BELOW: Final = 0.05
"""A disk that was too full is full enough again so much below the mark: no flapping."""

_LOOK_AGAIN_S: Final = 5.0
_ORPHANS_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """When a spool closes.

    Attributes:
        folder: Where spools are; declared to outlive process and machine.
        size_bytes: It holds so much.
        age_us: Its oldest record is so old.
        high_water: So full is the disk, 0 to 1.
    """

    folder: Path
    size_bytes: int
    age_us: int
    high_water: float


class Spools:
    """All of one process. Use from the loop that opened them."""

    def __init__(self, rules: SpoolLimits, telling: Telemetry, now_us: Callable[[], int]) -> None:
        """Have none yet; see `open`."""
        self.rules = rules
        self.breaker = KafkaBreaker()
        self.fault = ""
        """Why no records are taken; empty while they are."""
        self.stalled = False
        """The disk has not answered in time, and not since."""
        self.left = 0
        """Folders that former processes left, and that could not be opened."""
        self._telling = telling
        self._now_us = now_us
        self._own: Spool | None = None
        self._former: list[Spool] = []
        self._told = BreakerState.CLOSED
        self._adopted_s = 0.0

    @classmethod
    async def open(cls, rules: SpoolLimits, telling: Telemetry, now_us: Callable[[], int]) -> Self:
        """Adopt what former processes left, and open an own one; what cannot be had is told, and missing."""
        spools = cls(rules, telling, now_us)
        await spools._adopt()
        await spools._renew()
        return spools

    @property
    def has_room(self) -> bool:
        """Whether a record would be taken now."""
        own = self._own
        return (
            own is not None
            and not own.closed
            and not self.stalled
            and own.waiting_bytes < _WAITING_MAX_BYTES
            and own.size_bytes + own.waiting_bytes < self.rules.size_bytes
        )

    @property
    def _guards(self) -> bool:
        """Whether the breaker is for anything: with no spool there is nowhere else to go, and nobody to probe."""
        return self._own is not None or bool(self._former)

    @property
    def preferred(self) -> bool:
        """Whether records go here before Kafka is asked: the breaker is not closed, and there is room."""
        return self.breaker.state is not BreakerState.CLOSED and self.has_room

    @property
    def depth(self) -> int:
        """Records that Kafka has not yet."""
        return sum(spool.depth for spool in self.to_drain)

    @property
    def size_bytes(self) -> int:
        """Their size."""
        return sum(spool.size_bytes for spool in self.to_drain)

    @property
    def oldest_age_s(self) -> float:
        """How long the oldest of them waits, in seconds; 0 where there is none."""
        received = [spool.oldest_us for spool in self.to_drain if spool.oldest_us is not None]
        return max(0.0, (self._now_us() - min(received)) / 1e6) if received else 0.0

    @property
    def to_drain(self) -> list[Spool]:
        """All, the oldest first."""
        return self._former if self._own is None else [*self._former, self._own]

    def acked(self, now_s: float, took_s: float) -> None:
        """Kafka acknowledged a record, in time or late; arguments as of the breaker."""
        if not self._guards:
            return
        if self.breaker.state is not BreakerState.CLOSED and not self.has_room:
            self.breaker.probed(now_s, well=True)  # nobody else could: deliveries ask Kafka themselves
        self.breaker.acked(now_s, took_s)
        if self.breaker.state is not self._told:
            self.tell_breaker()

    def failed(self, now_s: float) -> None:
        """Kafka did not, in time."""
        if self._guards:
            self.breaker.failed(now_s)
        if self.breaker.state is not self._told:
            self.tell_breaker()

    def tell_breaker(self) -> None:
        """Say that the breaker is open, or closed again; a probe on the way is no news."""
        state = self.breaker.state
        if state is not BreakerState.HALF_OPEN and state is not self._told:
            self._told = state
            self._telling.breaker(state)

    def append(self, record: Spooled, on_report: OnReport) -> None:
        """Keep one record; ask `has_room` first."""
        assert self._own is not None
        self._own.append(record, partial(self._reported, on_report))

    async def look(self) -> None:
        """Close the own one when it is time, part with those that are empty, and open a new one; once a second."""
        own = self._own
        if own is not None and not own.closed and (reason := await self._reason(own)):
            own.close_to_new(reason)
            self._closed(reason)
        for spool in [spool for spool in self._former if not spool.depth]:
            await self._part(spool)
            self._former.remove(spool)
        if own is not None and own.closed and not own.depth and not own.waiting:
            passing = own.closed in _PASSING
            await self._part(own)
            self._own = None
            if passing:
                await self._renew()
        elif own is None and self.fault in _PASSING:
            await self._renew()
        await self._look_for_orphans()
        if not self._guards and self.breaker.state is not BreakerState.CLOSED:
            self.breaker.probed(asyncio.get_running_loop().time(), well=True)
            self.tell_breaker()

    async def end(self) -> None:
        """Keep what waits, and leave what is not drained to the next start; no disk is waited for longer than 5 s."""
        await asyncio.gather(*(self._end(spool) for spool in self.to_drain))

    async def _end(self, spool: Spool) -> None:
        try:
            async with asyncio.timeout(_END_S):
                await spool.end()
        except (SpoolError, TimeoutError) as error:
            fault = str(error) or "its disk does not answer"
            self._telling.spool("left", path=str(spool.path), fault=fault)

    def _reported(self, on_report: OnReport, kept: bool) -> None:  # noqa: FBT001 - a report's one word
        self.stalled = False
        on_report(kept)

    async def _adopt(self) -> None:
        """Take what former processes left, to drain it."""
        left = 0
        try:
            found = left_behind(self.rules.folder)
        except SpoolError as error:
            self._telling.spool("refused", path=str(self.rules.folder), fault=str(error))
            return
        for folder in found:
            try:
                spool = await Spool.adopt(folder, self._telling.spool_closed)
            except FolderTaken:
                continue
            except SpoolError as error:
                left += 1
                self._telling.spool("left", path=str(folder), fault=str(error))
            else:
                self._telling.spool("found", path=str(folder), records=spool.depth, damaged=spool.damaged)
                self._former.append(spool)
        self.left = left

    async def _look_for_orphans(self) -> None:
        """What another process left since, and what could not be opened before."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._adopted_s < (_LOOK_AGAIN_S if self.left else _ORPHANS_S):
            return
        self._adopted_s = now_s
        if await asyncio.to_thread(sync_s, self.rules.folder) < _SWIFT_S:
            await self._adopt()

    async def _renew(self) -> None:
        most = self.rules.high_water - (_AGAIN_BELOW if self.fault == "high_water" else 0)
        if await asyncio.to_thread(fullness, self.rules.folder) >= most:
            if self.fault != "high_water":
                self._closed("high_water")
            return
        if self.fault and await asyncio.to_thread(sync_s, self.rules.folder) >= _SWIFT_S:
            return
        try:
            self._own = await Spool.open(self.rules.folder, self._closed)
            self.fault = ""
        except SpoolError as error:
            self._telling.spool("refused", path=str(self.rules.folder), fault=str(error))
            self._closed("open")

    async def _part(self, spool: Spool) -> None:
        """All of it is in Kafka: remove it, or keep it as evidence where the disk failed."""
        betrayed = bool(spool.damaged) or spool.closed not in _PASSING | {"former"}
        try:
            if betrayed:
                await spool.aside(spool.closed)
                self._telling.spool("aside", path=str(spool.path), reason=spool.closed, damaged=spool.damaged)
            else:
                await spool.end()
        except (SpoolError, OSError) as error:
            self._telling.spool("left", path=str(spool.path), fault=str(error))

    async def _reason(self, own: Spool) -> str:
        if not own.path.exists():
            return "gone"  # somebody removed it: what is written there now would be lost with us
        if own.size_bytes + own.waiting_bytes >= self.rules.size_bytes:
            return "size"
        if own.oldest_us is not None and self._now_us() - own.oldest_us >= self.rules.age_us:
            return "age"
        return "high_water" if await asyncio.to_thread(fullness, self.rules.folder) >= self.rules.high_water else ""

    def _closed(self, reason: str) -> None:
        self.fault = reason
        self._telling.spool_closed(reason)
