"""Writes spooled records to Kafka, oldest first, and probes Kafka while the breaker is open.

While the breaker is open and the spool has room, only the drainer writes to Kafka.

Rule: a record is deleted from the spool after its delivery report, never before. A crash between report and deletion
writes the record twice, and the ledger finds a duplicate.

A record refused by Kafka, or not taken in time, is skipped for a while (`_skipped`): further records are not held up,
and the next probe of the breaker is a different record, since no single record may decide about Kafka.

A record older than the spool's age (6 h) is replaced by a dead letter and a re-check of the key, since the ledger would
find the record late and change no state.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from schemas.codec import Message
from schemas.dead_letter import DeadLetterReason
from schemas.spooled import Spooled
from services.adapters.kafka.producer import ABOUT_THE_RECORD, UNSEEN, KafkaError, Producer
from services.adapters.spool import Spool
from services.core.delivery.kafka_breaker import PROBE_S, BreakerState
from services.ingress import records
from services.ingress.spools import Spools
from services.ingress.telemetry import Telemetry

_IDLE_S: Final = 0.2
_MAINTAIN_S: Final = 1.0

_SKIP_S: Final = 2 * PROBE_S
"""How long a record is skipped: beyond the next probe, so that this probe is a different record."""

_BATCH: Final = 200
_SCANS: Final = 5
"""Batches that are searched for a record whose topic is writable; the next round goes on behind them."""

_BATCH_BYTES: Final = 4 << 20
"""Cap of a batch: enough for thousands of records a second, small beside fresh deliveries."""


@dataclass(frozen=True, slots=True)
class DrainerTopics:
    """Full names of the topics for re-checks and dead letters of expired records.

    Attributes:
        received: Full name of `lifecycle.received`.
        dead_letters: Full name of `lifecycle.dead-letters`.
    """

    received: str
    dead_letters: str


class Drainer:
    """Drains the spools of a process until cancelled."""

    def __init__(
        self,
        spools: Spools,
        producer: Producer,
        telemetry: Telemetry,
        on_failure: Callable[[str], None],
        topics: DrainerTopics,
        now_us: Callable[[], int],
        *,
        topic_fault: Callable[[str], str],
    ) -> None:
        """Prepares for `run`.

        Args:
            spools: The spools to drain.
            producer: Writes the records.
            telemetry: Counts the result of each record.
            on_failure: Called with librdkafka's reason for each failed write.
            topics: Topics for re-checks and dead letters of expired records.
            now_us: The clock, microseconds UTC.
            topic_fault: Returns the fault of a topic, given by full name, for which nothing may be written; empty text
                for none.
        """
        self._spools = spools
        self._producer = producer
        self._telemetry = telemetry
        self._on_failure = on_failure
        self._topics = topics
        self._now_us = now_us
        self._topic_fault = topic_fault
        # Weak keys: the numbers of a spool are forgotten with the spool.
        self._skipped: WeakKeyDictionary[Spool, set[int]] = WeakKeyDictionary()
        self._skip_until_s = 0.0

    async def run(self) -> None:
        """Drains and maintains the spools, in two loops: a slow disk must not delay draining."""
        await asyncio.gather(self._drain(), self._maintain())

    async def _drain(self) -> None:
        while True:
            busy = False
            try:
                busy = await self._round()
            except Exception:  # noqa: BLE001 - an error must not end the loop: spooled records are tried again
                self._telemetry.broken()
            await asyncio.sleep(0 if busy else _IDLE_S)

    async def _maintain(self) -> None:
        while True:
            try:
                await self._spools.maintain()
            except Exception:  # noqa: BLE001 - likewise
                self._telemetry.broken()
            await asyncio.sleep(_MAINTAIN_S)

    async def _round(self) -> bool:
        """Writes a batch of each spool to Kafka; returns True if more may be done at once."""
        # Not seen yet means that Kafka has not answered since the start: the records would be skipped for nothing.
        if self._topic_fault(self._topics.received) == UNSEEN:
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._skip_until_s:
            self._skipped.clear()
        busy = False
        # A copy: `maintain` removes spools from the list while this loop waits.
        for spool in list(self._spools.to_drain):
            skipped = self._skipped.setdefault(spool, set())
            if spool.depth > len(skipped):
                busy |= await self._batch(spool, skipped)
        return busy

    async def _batch(self, spool: Spool, skipped: set[int]) -> bool:
        """Writes a batch, or a single record as the breaker's probe; returns True if Kafka answered."""
        breaker, loop = self._spools.breaker, asyncio.get_running_loop()
        probing = breaker.state is not BreakerState.CLOSED
        if probing and not breaker.may_probe(loop.time()):
            return False
        # One fault until the batch is written: an exception counts as a failure of Kafka, an empty batch does not.
        kafka_answers, faults = False, [""]
        try:
            batch = await self._writable(spool, 1 if probing else _BATCH, skipped)
            # Without a record to write the probe is given back, so that a different spool may probe at once.
            if not batch and probing:
                breaker.forgo()
                probing = False
            faults = await asyncio.gather(*(self._write(record) for _, record in batch))
            written = [number for (number, _), fault in zip(batch, faults, strict=True) if not fault]
            failed = {number for (number, _), fault in zip(batch, faults, strict=True) if fault}
            if failed:
                self._skip(skipped, failed)
            spool.delete(written)
            # An error about one record or topic shows that Kafka answers.
            kafka_answers = any(not fault or fault in ABOUT_THE_RECORD for fault in faults)
        finally:
            # Also after an exception: a probe that was granted must be reported, or the breaker stays half open.
            if probing:
                breaker.probed(loop.time(), well=kafka_answers)
                self._spools.log_breaker()
                if kafka_answers:  # records that failed probes are tried again first
                    self._skipped.clear()
            elif faults and not kafka_answers:
                self._spools.failed(loop.time())
        return kafka_answers

    async def _writable(self, spool: Spool, most: int, skipped: set[int]) -> list[tuple[int, Spooled]]:
        """Returns the oldest records with writable topics; skips records of closed topics without a probe."""
        wanted = most
        for _ in range(_SCANS):
            batch = await spool.oldest(most, _BATCH_BYTES, skipped)
            if not batch:
                break
            closed = {number for number, record in batch if self._is_closed(record)}
            if closed:
                self._skip(skipped, closed)
                for _ in closed:
                    self._telemetry.drained("failed")
            if writable := [(number, record) for number, record in batch if number not in closed]:
                return writable[:wanted]
            # A probe asks for one record. Where its topic is closed, whole batches find a writable one sooner.
            most = _BATCH
        return []

    def _skip(self, skipped: set[int], numbers: Iterable[int]) -> None:
        skipped.update(numbers)
        self._skip_until_s = asyncio.get_running_loop().time() + _SKIP_S

    def _is_closed(self, record: Spooled) -> bool:
        return any(self._topic_fault(topic) for topic, _ in self._messages(record, self._now_us())[1])

    def _messages(self, record: Spooled, now_us: int) -> tuple[bool, list[tuple[str, Message]]]:
        """Returns True if a record is expired, and the messages to write for the record, each with a topic."""
        # A re-check has no age limit: Genesys tells the present, however late it is asked.
        too_old = now_us - record.received_us > self._spools.limits.age_us
        expired = too_old and not records.is_recheck(record.message)
        return expired, self._expired(record, now_us) if expired else [(record.topic, record.message)]

    async def _write(self, record: Spooled) -> str:
        """Writes a record; returns the error code, or empty text."""
        expired, messages = self._messages(record, self._now_us())
        try:
            # In turn: the re-check follows only when the dead letter is acknowledged.
            for topic, message in messages:
                await self._producer.send_and_wait(topic, message)
        except KafkaError as error:
            self._on_failure(error.code)
            self._telemetry.drained("failed")
            return error.code
        self._telemetry.drained("expired" if expired else "written")
        # A spooled dead letter has no age limit: of that, one message is written, as it is.
        if any(topic == self._topics.dead_letters != record.topic for topic, _ in messages):
            self._telemetry.dead_letter(DeadLetterReason.SPOOLED_TOO_LONG)
        return ""

    def _expired(self, record: Spooled, now_us: int) -> list[tuple[str, Message]]:
        if record.topic != self._topics.received or record.message.key is None:
            return [(record.topic, record.message)]  # a dead letter has no age limit
        key = record.message.key.decode()
        return [
            (self._topics.dead_letters, records.expired(record.message, key, now_us)),
            (self._topics.received, records.recheck(key, "spooled_too_long", now_us)),
        ]
