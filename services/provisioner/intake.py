"""`lifecycle.desired` → registry, then the offset: the newest version of each key, and nothing else.

Rule: an offset is committed after the registry has the record. Intake stops, and says why, when it cannot know what it
missed: its offset is outside the log, or the registry is empty while the group has read before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from schemas.codec import Message, Unreadable, decode
from schemas.tenant import Desired
from schemas.topics import DEAD_LETTERS, named
from services.adapters.kafka.group_consumer import Consumer, Fetched
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.core.ledger.dead_letters import letter
from services.core.ledger.journal import RecordPosition

R = TypeVar("R")

BATCH: Final = 500
_WAIT_S: Final = 0.1
_AWAY_FIRST_S: Final = 0.2
_AWAY_MOST_S: Final = 5.0
_WAY_BACK: Final = (
    "have every key published again (`lifecycle ledger --republish`), then start one provisioner with "
    "--accept-older-registry"
)


class Stopped(Exception):
    """Intake must not go on by itself; the text says why and what to do."""


class Intake:
    """The consumer of one process."""

    def __init__(
        self,
        consumer: Consumer,
        registry: Registry,
        producer: Producer,
        *,
        prefix: str,
        now_us: Callable[[], int],
        log: Logger,
    ) -> None:
        """Take the two ends.

        Args:
            consumer: Of `lifecycle.desired`.
            registry: Started.
            producer: For what cannot be read.
            prefix: Of this installation's topics.
            now_us: The clock.
            log: Of the service.
        """
        self._consumer, self._registry, self._producer = consumer, registry, producer
        self._prefix, self._now_us, self._log = prefix, now_us, log
        self._stopping = False
        self.on_stored: Callable[[], None] = lambda: None
        """Called when versions were stored."""
        self.well: Callable[[], None] = lambda: None
        """Called after each look at Kafka as a member of the group."""
        self.may_store: Callable[[], bool] = lambda: True
        """Asked before versions are stored: into a registry that was set back they would hide that it was."""

    def stop(self) -> None:
        """Finish the batch in hand."""
        self._stopping = True

    async def run(self) -> None:
        """Read until `stop`.

        Raises:
            RegistryAway: it was away when asked to stop.
            Stopped: the registry is empty though the group has read before.
            OffsetLoss: the group's offset is outside the log.
            KafkaError: the broker refuses.
        """
        if await self._consumer.has_committed() and await self._patiently(self._registry.is_empty):
            raise Stopped(f"the registry is empty, but its consumer group has offsets: {_WAY_BACK}")
        while not self._stopping:
            records = await self._consumer.batch(BATCH, _WAIT_S)
            if self._consumer.has_joined:
                self.well()
            if records:
                await self._store(records)

    async def _store(self, records: list[Fetched]) -> None:
        versions: list[Desired] = []
        for record in records:
            try:
                versions.append(decode(Desired, record.value))
            except Unreadable as fault:
                await self._bury(record, fault)
        changed = await self._patiently(lambda: self._registry.store(versions)) if versions else 0
        try:
            await self._consumer.commit(records)
        except KafkaError as error:
            # They come again, and the registry knows them.
            self._log.warning("offsets not committed", why=error.reason)
        if changed:
            self.on_stored()

    async def _patiently(self, ask: Callable[[], Awaitable[R]]) -> R:
        """Ask the registry until it answers; what was read waits meanwhile, and so does Kafka."""
        pause_s = _AWAY_FIRST_S
        while True:
            if self.may_store():
                with suppress(RegistryAway):
                    return await ask()
            if self._stopping:
                raise RegistryAway("asked to stop")
            await asyncio.sleep(pause_s)
            pause_s = min(_AWAY_MOST_S, pause_s * 2)

    async def _bury(self, record: Fetched, fault: Unreadable) -> None:
        place = RecordPosition(record.topic, record.partition, record.offset, self._now_us())
        key = record.key.decode("utf-8", "replace") if record.key else None
        raw = Message(record.key, record.value or b"", record.headers)
        message = letter(key, "unreadable", str(fault), place, raw, source="provisioner").message
        await self._producer.acked(named(DEAD_LETTERS, self._prefix), message)
        self._log.error("dead letter", place=f"{place.topic}/{place.partition}/{place.offset}", why=str(fault))
