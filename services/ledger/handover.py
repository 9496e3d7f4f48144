"""What a worker says again of the partitions it takes over: desired and tenants of keys changed a short while ago.

A reader keeps the greatest version, and the worker before may have died between two of its records, or have written
after it lost the partition; saying it again once ends both. For keys that have not changed for longer nobody waits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from itertools import chain

from schemas.codec import Unreadable
from schemas.rows import updated_at_us
from schemas.topics import RECEIVED, named
from services.adapters.tables.exits import WorkerExit
from services.core.ledger.decisions import question, republish
from services.ledger.agents import Ledger

RECENT_US = 3_600 * 1_000_000
_ROWS_A_TURN = 200
"""Read between two turns of the event loop, which has others to serve meanwhile."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Says again what stands.

    Attributes:
        ledger: Whose rows.
        now_us: The clock.
        whole: Every key, not only those changed within the hour.
    """

    ledger: Ledger
    now_us: Callable[[], int]
    whole: bool = False

    async def taken(self, partitions: Collection[int]) -> None:
        """Say again what stands for the keys of these partitions, before their events go on."""
        since_us = 0 if self.whole else self.now_us() - RECENT_US
        lost = self._losses()
        for partition in sorted(partitions):
            if partition in lost:
                await self._ask_again(partition)
            told = 0
            async for key in self._changed(partition, since_us):
                told += 1
                self.ledger.send(republish(*self.ledger.rows(partition, key), self.ledger.rules))
            self.ledger.log.info("partition taken over", partition=partition, keys_told_again=told)

    def _losses(self) -> set[int]:
        """Say what is gone; the partitions whose keys Genesys can say something about."""
        lost, received = dict(self.ledger.app.lost), named(RECEIVED, self.ledger.prefix)
        self.ledger.app.lost.clear()
        for tp, told in lost.items():
            cure = "Genesys is asked about every key" if tp.topic == received else "stages wait for the next outcomes"
            self.ledger.log.warning("loss accepted", lost=told, cure=cure)
        return {tp.partition for tp in lost if tp.topic == received}

    async def _ask_again(self, partition: int) -> None:
        """Records are gone unread: Genesys is asked about every key that they may have spoken of."""
        asked = 0
        async for key in self._changed(partition, 0):
            asked += 1
            self.ledger.send((question(key.decode(), "records_lost", self.now_us()),))
        self.ledger.log.warning("asked after a loss", partition=partition, keys=asked)

    async def _changed(self, partition: int, since_us: int) -> AsyncIterator[bytes]:
        """The keys of which either row has changed since, each once."""
        found: set[bytes] = set()
        app = self.ledger.app
        both = chain(self.ledger.tenants.rows(partition), self.ledger.stages.rows(partition))
        for number, (key, row) in enumerate(both):
            if number % _ROWS_A_TURN == 0:
                app.looked_at += _ROWS_A_TURN
                await app.log_of_writes.room()
                await asyncio.sleep(0)
            if self._updated_at_us(partition, key, row) >= since_us and key not in found:
                found.add(key)
                yield key

    def _updated_at_us(self, partition: int, key: bytes, row: bytes) -> int:
        try:
            return updated_at_us(row)
        except Unreadable as fault:
            cure = "start the newer release that wrote it, or write its row again"
            self.ledger.app.end(WorkerExit.STORE, f"a row of partition {partition}, key {key[:100]!r}: {fault}; {cure}")
