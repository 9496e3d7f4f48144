"""Takes spooled records to Kafka, in order, and is the only one that tries while the breaker is open.

Rule: a record leaves the spool after its delivery report, and not a moment before. One that has waited longer than the
ledger may be told of it (spec section 2, 6 h) changes no state any more: it goes to dead letters, and its key to a
re-check.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from schemas.codec import Message
from schemas.spooled import Spooled
from schemas.topics import DEAD_LETTERS, RECEIVED, named
from services.adapters.kafka import KafkaError, Producer
from services.adapters.spool import Spool
from services.core.breaker import State
from services.ingress import records
from services.ingress.spools import Spools
from services.ingress.telling import Telling

_LOOK_S: Final = 0.2
_HOUSEKEEPING_S: Final = 1.0

_BATCH: Final = 200
_BATCH_BYTES: Final = 4 << 20
"""What is under way at once: enough for thousands of records a second, little beside fresh deliveries."""


class Drainer:
    """Drains the spools of one process until it is cancelled."""

    def __init__(
        self, spools: Spools, producer: Producer, telling: Telling, *, topic_prefix: str, now_us: Callable[[], int]
    ) -> None:
        self._spools = spools
        self._producer = producer
        self._telling = telling
        self._now_us = now_us
        self._received = named(RECEIVED, topic_prefix)
        self._dead_letters = named(DEAD_LETTERS, topic_prefix)

    async def run(self) -> None:
        """Drain, and keep the spools' house."""
        loop = asyncio.get_running_loop()
        house_s = 0.0
        while True:
            busy = False
            try:
                busy = await self._round()
                if loop.time() >= house_s:
                    await self._spools.look()
                    house_s = loop.time() + _HOUSEKEEPING_S
            except Exception:  # noqa: BLE001 - whatever fails once, what is spooled must be tried again
                self._telling.broken()
            await asyncio.sleep(0 if busy else _LOOK_S)

    async def _round(self) -> bool:
        """Take one batch to Kafka; whether there may be more to do at once."""
        for spool in self._spools.to_drain:
            if spool.depth:
                return await self._batch(spool)
        return False

    async def _batch(self, spool: Spool) -> bool:
        breaker, loop = self._spools.breaker, asyncio.get_running_loop()
        probing = breaker.state is not State.CLOSED
        if probing and not breaker.may_probe(loop.time()):
            return False
        well = False
        try:
            batch = await spool.oldest(1 if probing else _BATCH, _BATCH_BYTES)
            written = await asyncio.gather(*(self._write(record) for _, record in batch))
            spool.delete(number for (number, _), done in zip(batch, written, strict=True) if done)
            well = bool(batch) and all(written)
        finally:
            if probing:
                breaker.probed(loop.time(), well=well)
                self._spools.tell_breaker()
            elif not well:
                self._spools.failed(loop.time())
        return well

    async def _write(self, record: Spooled) -> bool:
        if self._now_us() - record.received_us > self._spools.rules.age_us:
            written = await self._write_all(*self._expired(record))
            self._telling.drained("expired" if written else "failed")
        else:
            written = await self._write_all((record.topic, record.message))
            self._telling.drained("written" if written else "failed")
        return written

    async def _write_all(self, *messages: tuple[str, Message]) -> bool:
        try:
            for topic, message in messages:
                await self._producer.acked(topic, message)
        except KafkaError as error:
            self._telling.unwritten(error.reason)
            return False
        return True

    def _expired(self, record: Spooled) -> list[tuple[str, Message]]:
        if record.topic != self._received or record.message.key is None:
            return [(record.topic, record.message)]  # a dead letter is one at any age
        key, now_us = record.message.key.decode(), self._now_us()
        letter = records.expired(record.message, key, now_us)
        return [(self._dead_letters, letter), (self._received, records.recheck(key, "spooled_too_long", now_us))]
