"""Republishes desired and tenants of recently changed keys when a worker takes partitions over.

Problem: the worker before may have died between two of its records, or may have written after losing the partition.
Readers may then lack the newest version. Approach: the new worker writes both records of each key once more. Readers
keep the greatest version, so a repeated record changes nothing. Only keys changed within the hour are republished,
since no reader waits for older changes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from itertools import chain

from schemas.codec import Unreadable
from schemas.rows import updated_at_us
from schemas.topics import RECEIVED, named
from services.adapters.tables.exits import WorkerExit
from services.core.ledger.decisions import recheck_request, republish
from services.ledger.agents import Ledger

RECENT_US = 3_600 * 1_000_000
_ROWS_A_TURN = 200
"""Rows read between two turns of the event loop, which has further tasks to run meanwhile."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Republishes keys of partitions taken over.

    Attributes:
        ledger: Tables and outputs.
        now_us: The clock, microseconds UTC.
        whole: True to republish every key, not only those changed within the hour.
    """

    ledger: Ledger
    now_us: Callable[[], int]
    whole: bool = False

    async def on_takeover(self, partitions: Collection[int]) -> None:
        """Republishes the keys of partitions; awaited after recovery and before the first event."""
        since_us = 0 if self.whole else self.now_us() - RECENT_US
        lost = self._report_losses()
        for partition in sorted(partitions):
            if partition in lost:
                await self._recheck_all(partition)
            count = 0
            async for key in self._changed_keys(partition, since_us):
                count += 1
                self.ledger.send(republish(*self.ledger.rows(partition, key), self.ledger.rules))
            self.ledger.log.info("partition taken over", partition=partition, keys=count)

    def _report_losses(self) -> set[int]:
        """Logs accepted losses of records; returns the partitions of `lifecycle.received` among them."""
        lost, received = dict(self.ledger.app.lost), named(RECEIVED, self.ledger.prefix)
        self.ledger.app.lost.clear()
        for tp, what in lost.items():
            cure = "Genesys is asked about every key" if tp.topic == received else "stages wait for the next outcomes"
            self.ledger.log.warning("loss accepted", why=what, remedy=cure)
        # Genesys knows installations, and no outcomes of the provisioner: a re-check restores nothing of those.
        return {tp.partition for tp in lost if tp.topic == received}

    async def _recheck_all(self, partition: int) -> None:
        """Requests a re-check of every key of a partition, since any of them may be in the lost records."""
        asked = 0
        async for key in self._changed_keys(partition, 0):
            asked += 1
            self.ledger.send((recheck_request(key.decode(), "records_lost", self.now_us()),))
        self.ledger.log.warning("asked after a loss", partition=partition, keys=asked)

    async def _changed_keys(self, partition: int, since_us: int) -> AsyncIterator[bytes]:
        """Yields each key once of which either row has changed since `since_us`, microseconds UTC."""
        found: set[bytes] = set()
        app = self.ledger.app
        both = chain(self.ledger.tenants.rows(partition), self.ledger.stages.rows(partition))
        for number, (key, row) in enumerate(both):
            if number % _ROWS_A_TURN == 0:
                # Three duties of a long loop: show the watchdog progress, do not overfill the producer's queue, and
                # let the event loop turn.
                app.looked_at += _ROWS_A_TURN
                await app.log_of_writes.wait_for_room()
                await asyncio.sleep(0)
            if self._updated_at_us(partition, key, row) >= since_us and key not in found:
                found.add(key)
                yield key

    def _updated_at_us(self, partition: int, key: bytes, row: bytes) -> int:
        """Returns the time of the row's last change; ends the process at a row that this release cannot read."""
        try:
            return updated_at_us(row)
        except Unreadable as fault:
            cure = "start the newer release that wrote it, or write its row again"
            self.ledger.app.end(WorkerExit.STORE, f"a row of partition {partition}, key {key[:100]!r}: {fault}; {cure}")
