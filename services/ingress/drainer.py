"""Takes spooled records to Kafka, in order, and is the only one that tries while the breaker is open.

Rule: a record leaves the spool after its delivery report, and not a moment before. One that Kafka refuses, or does not
take in time, is passed over and tried again later: it holds up no other, and it is not the only one that may probe.
One that has waited longer than the ledger may be told of it (6 h) changes no state any more: it goes to
dead letters, and its key to a re-check.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from schemas.codec import Message
from schemas.spooled import Spooled
from services.adapters.kafka.producer import ABOUT_THE_RECORD, UNSEEN, KafkaError, Producer
from services.adapters.spool import Spool
from services.core.delivery.kafka_breaker import PROBE_S, BreakerState
from services.ingress import records
from services.ingress.spools import Spools
from services.ingress.telemetry import Telemetry

_LOOK_S: Final = 0.2
_HOUSEKEEPING_S: Final = 1.0

_AGAIN_S: Final = 2 * PROBE_S
"""How long what was passed over is left alone: beyond the end of the next probe, which so is another record."""

_BATCH: Final = 200
_LOOKS: Final = 5
"""Batches looked through for a record whose topic is open; the next round goes on behind them."""

_BATCH_BYTES: Final = 4 << 20
"""What is under way at once: enough for thousands of records a second, little beside fresh deliveries."""


@dataclass(frozen=True, slots=True)
class DrainerTopics:
    """Whole names of those it writes to by itself."""

    received: str
    dead_letters: str


class Drainer:
    """Drains the spools of one process until it is cancelled."""

    def __init__(
        self,
        spools: Spools,
        producer: Producer,
        telling: Telemetry,
        on_failure: Callable[[str], None],
        topics: DrainerTopics,
        now_us: Callable[[], int],
    ) -> None:
        """Drain nothing yet.

        Args:
            spools: What to drain.
            producer: Its delivery reports decide.
            telling: Told what became of each record.
            on_failure: Told librdkafka's reason of each record that was not written.
            topics: For what has waited too long.
            now_us: Microseconds UTC.
        """
        self._spools = spools
        self._producer = producer
        self._telling = telling
        self._on_failure = on_failure
        self._topics = topics
        self._now_us = now_us
        self._passed_over: WeakKeyDictionary[Spool, set[int]] = WeakKeyDictionary()
        self._again_s = 0.0
        self.topic_fault: Callable[[str], str] = lambda _: ""
        """Asked before a record is sent: why nothing may be written to its topic; empty text when it may."""

    async def run(self) -> None:
        """Drain, and keep the spools' house; neither waits for the other, nor one disk for another."""
        await asyncio.gather(self._drain(), self._keep_house())

    async def _drain(self) -> None:
        while True:
            busy = False
            try:
                busy = await self._round()
            except Exception:  # noqa: BLE001 - whatever fails once, what is spooled must be tried again
                self._telling.broken()
            await asyncio.sleep(0 if busy else _LOOK_S)

    async def _keep_house(self) -> None:
        while True:
            try:
                await self._spools.look()
            except Exception:  # noqa: BLE001 - likewise
                self._telling.broken()
            await asyncio.sleep(_HOUSEKEEPING_S)

    async def _round(self) -> bool:
        """Take a batch of each spool to Kafka; whether there may be more to do at once."""
        if self.topic_fault(self._topics.received) == UNSEEN:
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._again_s:
            self._passed_over.clear()
        busy = False
        for spool in list(self._spools.to_drain):
            passed_over = self._passed_over.setdefault(spool, set())
            if spool.depth > len(passed_over):
                busy |= await self._batch(spool, passed_over)
        return busy

    async def _batch(self, spool: Spool, passed_over: set[int]) -> bool:
        breaker, loop = self._spools.breaker, asyncio.get_running_loop()
        probing = breaker.state is not BreakerState.CLOSED
        if probing and not breaker.may_probe(loop.time()):
            return False
        well, faults = False, [""]
        try:
            batch = await self._writable(spool, 1 if probing else _BATCH, passed_over)
            if not batch and probing:
                breaker.forgo()
                probing = False
            faults = await asyncio.gather(*(self._write(record) for _, record in batch))
            written = [number for (number, _), fault in zip(batch, faults, strict=True) if not fault]
            failed = {number for (number, _), fault in zip(batch, faults, strict=True) if fault}
            if failed:
                self._pass_over(passed_over, failed)
            spool.delete(written)
            # What Kafka has against one record says that it answers.
            well = any(not fault or fault in ABOUT_THE_RECORD for fault in faults)
        finally:
            if probing:
                breaker.probed(loop.time(), well=well)
                self._spools.tell_breaker()
                if well:  # what probes passed over comes first again
                    self._passed_over.clear()
            elif faults and not well:
                self._spools.failed(loop.time())
        return well

    async def _writable(self, spool: Spool, most: int, passed_over: set[int]) -> list[tuple[int, Spooled]]:
        """The oldest records whose topics may be written to; the others are passed over, and cost no probe."""
        wanted = most
        for _ in range(_LOOKS):
            batch = await spool.oldest(most, _BATCH_BYTES, passed_over)
            if not batch:
                break
            closed = {number for number, record in batch if self._is_closed(record)}
            if closed:
                self._pass_over(passed_over, closed)
                for _ in closed:
                    self._telling.drained("failed")
            if writable := [(number, record) for number, record in batch if number not in closed]:
                return writable[:wanted]
            most = _BATCH
        return []

    def _pass_over(self, passed_over: set[int], numbers: Iterable[int]) -> None:
        passed_over.update(numbers)
        self._again_s = asyncio.get_running_loop().time() + _AGAIN_S

    def _is_closed(self, record: Spooled) -> bool:
        return any(self.topic_fault(topic) for topic, _ in self._messages(record, self._now_us())[1])

    def _messages(self, record: Spooled, now_us: int) -> tuple[bool, list[tuple[str, Message]]]:
        """Whether a record has waited too long, and what is written of it."""
        expired = now_us - record.received_us > self._spools.rules.age_us
        return expired, self._expired(record, now_us) if expired else [(record.topic, record.message)]

    async def _write(self, record: Spooled) -> str:
        """Write one; why it is not written, or nothing."""
        expired, messages = self._messages(record, self._now_us())
        try:
            for topic, message in messages:
                await self._producer.acked(topic, message)
        except KafkaError as error:
            self._on_failure(error.code)
            self._telling.drained("failed")
            return error.code
        self._telling.drained("expired" if expired else "written")
        return ""

    def _expired(self, record: Spooled, now_us: int) -> list[tuple[str, Message]]:
        if record.topic != self._topics.received or record.message.key is None:
            return [(record.topic, record.message)]  # a dead letter is one at any age
        key = record.message.key.decode()
        return [
            (self._topics.dead_letters, records.expired(record.message, key, now_us)),
            (self._topics.received, records.recheck(key, "spooled_too_long", now_us)),
        ]
