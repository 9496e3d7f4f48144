"""What a worker says again of the partitions it takes over: desired and tenants of keys changed a short while ago.

A reader keeps the greatest version, and the worker before may have died between two of its records, or have written
after it lost the partition; saying it again once ends both. For keys that have not changed for longer nobody waits.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from schemas.rows import StageRow, TenantRow, unpack
from services.core.ledger import republish
from services.ledger.agents import Ledger

RECENT_US = 3_600 * 1_000_000
_KEYS_A_TURN = 200
"""Between two turns of the event loop, which has heartbeats to send meanwhile."""


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
        for partition in sorted(partitions):
            keys = self._changed(partition, since_us)
            told = 0
            for told, key in enumerate(keys, start=1):
                self.ledger.send(republish(*self.ledger.rows(partition, key), self.ledger.rules))
                if told % _KEYS_A_TURN == 0:
                    await self.ledger.app.log_of_writes.room()
                    await asyncio.sleep(0)
            self.ledger.log.info("partition taken over", partition=partition, keys_told_again=told)

    def _changed(self, partition: int, since_us: int) -> list[bytes]:
        tenants = (
            key
            for key, packed in self.ledger.tenants.rows(partition)
            if self.whole or unpack(TenantRow, packed).updated_at_us >= since_us
        )
        stages = (
            key
            for key, packed in self.ledger.stages.rows(partition)
            if self.whole or unpack(StageRow, packed).updated_at_us >= since_us
        )
        return sorted({*tenants, *stages})
