"""Consumes `lifecycle.desired` and stores the newest version of each key in the registry.

Rule: an offset is committed only after the registry has the record. A crash between the two repeats the record, and the
registry ignores a version it already has. Intake stops for good, with a reason, if records may have been missed: the
committed offset is outside the log (`OffsetLoss`), or the registry is empty although the group has committed offsets
(`Stopped`). Skipping ahead would leave tenants at an old desired version without any sign of the loss.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from schemas.codec import Message, Unreadable, decode, traceparent
from schemas.dead_letter import DeadLetterReason
from schemas.tenant import Desired
from schemas.topics import DEAD_LETTERS, named
from services.adapters.kafka.group_consumer import Consumer, Fetched
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import Arrival
from services.core.dead_letters import dead_letter_of, origin_of_record
from services.provisioner.spans import record_arrivals
from services.provisioner.telemetry import record_dead_letter

R = TypeVar("R")

BATCH: Final = 500
_WAIT_S: Final = 0.1
_AWAY_FIRST_S: Final = 0.2
_AWAY_MOST_S: Final = 5.0
_REMEDY: Final = (
    "have every key published again (`lifecycle ledger --republish`), then start one provisioner with "
    "--accept-older-registry"
)


class Stopped(Exception):
    """Intake must not go on by itself; the text has the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class IntakeHooks:
    """Callbacks of an intake.

    Attributes:
        may_store: Asked before each use of the registry. Newer versions stored in a registry that was set back would
            hide the set-back from the proof.
        on_polled: Called after each successful poll as a member of the group.
        on_stored: Called after newer versions were stored.
    """

    may_store: Callable[[], bool]
    on_polled: Callable[[], None]
    on_stored: Callable[[], None]


class Intake:
    """Intake with one consumer; a new consumer needs a new intake."""

    def __init__(
        self,
        consumer: Consumer,
        registry: Registry,
        producer: Producer,
        hooks: IntakeHooks,
        *,
        prefix: str,
        now_us: Callable[[], int],
        log: Logger,
    ) -> None:
        """Prepares the intake; nothing is read before `run`.

        Args:
            consumer: Consumer of `lifecycle.desired`.
            registry: Started registry.
            producer: Producer for dead letters.
            hooks: Callbacks.
            prefix: Prefix of the installation's topics.
            now_us: Clock, microseconds UTC.
            log: Logger of the service.
        """
        self._consumer, self._registry, self._producer = consumer, registry, producer
        self._hooks, self._prefix, self._now_us, self._log = hooks, prefix, now_us, log
        self._stopping = False

    def stop(self) -> None:
        """Ends `run` after the current batch."""
        self._stopping = True

    async def run(self) -> None:
        """Reads and stores until `stop`.

        Raises:
            RegistryAway: the registry was away, or not to be used yet, when `stop` was called.
            Stopped: the registry is empty although the group has committed offsets.
            OffsetLoss: the group's committed offset is outside the log.
            KafkaError: the broker refuses, or a dead letter was not acknowledged.
        """
        if await self._consumer.has_committed() and await self._retry_until_available(self._registry.is_empty):
            raise Stopped(f"the registry is empty, but its consumer group has offsets: {_REMEDY}")
        while not self._stopping:
            records = await self._consumer.batch(BATCH, _WAIT_S)
            if self._consumer.has_joined:
                self._hooks.on_polled()
            if records:
                await self._store(records)

    async def _store(self, records: list[Fetched]) -> None:
        """Stores a batch, then commits its offsets; unreadable records go to the dead letters first."""
        versions: list[Arrival] = []
        for record in records:
            try:
                versions.append(Arrival(decode(Desired, record.value), traceparent(record.headers)))
            except Unreadable as fault:
                await self._bury(record, fault)
        begun_us = self._now_us()
        changed = await self._retry_until_available(lambda: self._registry.store(versions)) if versions else 0
        record_arrivals(versions, begun_us)
        try:
            await self._consumer.commit(records)
        except KafkaError as error:
            # Harmless: the records come again, and the registry ignores known versions.
            self._log.warning("offsets not committed", why=error.reason)
        if changed:
            self._hooks.on_stored()

    async def _retry_until_available(self, ask: Callable[[], Awaitable[R]]) -> R:
        """Repeats a registry operation until the registry answers. No further record is read meanwhile.

        Raises:
            RegistryAway: `stop` was called before the registry answered.
        """
        pause_s = _AWAY_FIRST_S
        while True:
            if self._hooks.may_store():
                with suppress(RegistryAway):
                    return await ask()
            if self._stopping:
                raise RegistryAway("asked to stop")
            await asyncio.sleep(pause_s)
            pause_s = min(_AWAY_MOST_S, pause_s * 2)

    async def _bury(self, record: Fetched, fault: Unreadable) -> None:
        """Writes an unreadable record to the dead letters and waits for the delivery report.

        Raises:
            KafkaError: the dead letter was not acknowledged; the offset stays uncommitted.
        """
        origin = origin_of_record(record.topic, record.partition, record.offset, self._now_us())
        key = record.key.decode("utf-8", "replace") if record.key else None
        raw = Message(record.key, record.value or b"", record.headers)
        message = dead_letter_of(origin, key, DeadLetterReason.UNREADABLE, str(fault), raw, source="provisioner")
        await self._producer.send_and_wait(named(DEAD_LETTERS, self._prefix), message)
        record_dead_letter(key, DeadLetterReason.UNREADABLE, origin.id, str(fault), self._log)
