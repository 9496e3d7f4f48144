"""Sealer of the audit trail: once per interval a seal over the new records of each partition of `lifecycle.audit`.

Rules:
- The topic is the only state. Each look begins at the newest seal in the log, so a crash at any point is followed by a
  look that finds what was written. Several sealers need no lock (`services.core.seals.chain`).
- A look reads the last sealed range and what came after it, record by record, and compares both with the seal.
- Reading runs in a thread, and a fault ends the look: reconciliation never waits for the sealer.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from confluent_kafka import Message

from schemas.seal import Seal
from schemas.topics import AUDIT, named
from services.adapters.kafka.offsets import OffsetSpan
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.reader import TopicReader, as_stored
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ReconcilerSettings
from services.adapters.secrets import keyring
from services.core.seals import chain
from services.reconciler.run import wrong_topics

JITTER: Final = 0.1
"""Part of the interval by which looks are moved, so that two sealers seldom look at once."""
FIRST_LOOK_MAX_S: Final = 5.0
"""Longest delay of the first look after the start, in seconds."""
AGAIN_FIRST_S: Final = 15.0
"""Seconds from a failed look to the next; doubled after each further one, up to the interval."""
_SILENCE_S: Final = 5.0
"""Longest silence of the broker. A stop of the service waits as long."""
_CLOSE: Final = chain.WINDOW // 2
"""Offsets written during a reading up to which a seal may be written; after a longer reading the new ones are read
first, since a seal too far behind its range does not count (`chain.WINDOW`). Half of the window: a storm never lets the
reader catch up wholly, and the other half is left for the write."""


class _Stopped(Exception):
    """Raised in the reading thread after the service was asked to stop."""


class _Look(NamedTuple):
    """What a reading of one partition found.

    Attributes:
        seal: The seal to write, without a signature; None if none is due.
        read_us: A time before which every record had been read, microseconds UTC.
        unsealed_us: Time of the oldest unsealed record, microseconds UTC; None without one.
        faults: Differences between the newest seals and their records.
    """

    seal: Seal | None
    read_us: int
    unsealed_us: int | None
    faults: tuple[chain.Breach, ...]


class TrailSealer:
    """Seals the trail of one installation. Use from one event loop."""

    def __init__(
        self, settings: ReconcilerSettings, producer: Producer, now_us: Callable[[], int], log: Logger
    ) -> None:
        """Prepares the sealer without connecting.

        Args:
            settings: The environment.
            producer: Producer of the process.
            now_us: Our clock, microseconds UTC.
            log: Log of the process.
        """
        self._settings, self._producer, self._now_us, self._log = settings, producer, now_us, log
        self._topic = named(AUDIT, settings.topic_prefix)
        self._interval_us = int(settings.seal_interval_s * 1_000_000)
        self._stopping = threading.Event()
        self._fault = ""
        self._began_us = now_us()
        self._sealed_to_us: dict[int, int] = {}

    @property
    def unsealed_age_s(self) -> float:
        """Returns the age that an unsealed record can have at most, in seconds; from the start on before a look."""
        return max(0, self._now_us() - min(self._sealed_to_us.values(), default=self._began_us)) / 1_000_000

    async def run(self, jitter: random.Random) -> None:
        """Looks once per interval until cancelled; a failed look is repeated sooner."""
        interval_s = self._settings.seal_interval_s
        again_s = AGAIN_FIRST_S
        await asyncio.sleep(jitter.uniform(0, min(FIRST_LOOK_MAX_S, interval_s * JITTER)))
        try:
            while True:
                if await self._look_without_raising():
                    again_s, pause_s = AGAIN_FIRST_S, interval_s * jitter.uniform(1 - JITTER, 1 + JITTER)
                else:
                    again_s, pause_s = 2 * again_s, min(interval_s, again_s)
                await asyncio.sleep(pause_s)
        finally:
            self._stopping.set()

    async def look(self) -> None:
        """Seals every partition with unsealed records and without a recent seal.

        A fault of one partition does not keep the next partition from its seal.

        Raises:
            KafkaError: Kafka does not answer, refuses, or the topic is not as the topic table declares.
            Unusable: The keyring cannot be used.
        """
        # Read anew for each look, so that a rotated key needs no restart, and two sealers agree about every seal.
        materials = [keyring.raw(key) for key in keyring.material(self._settings.keyring_file).seal]
        if wrong := await asyncio.to_thread(wrong_topics, self._settings, AUDIT):
            raise KafkaError(wrong)
        partitions = await asyncio.to_thread(self._partitions)
        # A partition that fails from the start on must count too.
        self._sealed_to_us = dict.fromkeys(partitions, self._began_us) | self._sealed_to_us
        failed: KafkaError | None = None
        for partition in partitions:
            try:
                await self._seal(partition, materials)
            except KafkaError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _look_without_raising(self) -> bool:
        """Looks once; returns False after a fault, which is counted, and logged when it changes."""
        try:
            await self.look()
        # Broad, because a bug of the sealer must not end the reconciler, and a log line with a metric tells it.
        except Exception as error:  # noqa: BLE001
            metrics.RECONCILER_SEALS.labels(result="failed").inc()
            fault = in_words(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}"
            if fault != self._fault:
                self._log.warning("audit trail not sealed", why=fault)
            self._fault = fault
            return False
        self._fault = ""
        return True

    async def _seal(self, partition: int, materials: list[bytes]) -> None:
        """Reads a partition, and writes the seal that is due."""
        found = await asyncio.to_thread(self._read, partition, materials)
        for fault in found.faults:
            self._log.error("audit trail differs", partition=partition, offset=fault.offset, why=fault.text)
        self._sealed_to_us[partition] = found.read_us if found.unsealed_us is None else found.unsealed_us
        if found.seal is None:
            return
        seal = chain.signed(found.seal, materials[0])
        ack = await self._producer.send_and_wait(self._topic, chain.message(seal), partition)
        if ack.offset - seal.next > chain.WINDOW:
            raise KafkaError(f"{self._topic}/{partition}: the seal came too late behind its records")
        metrics.RECONCILER_SEALS.labels(result="written").inc()
        self._sealed_to_us[partition] = found.read_us
        self._log.info("sealed", partition=partition, number=seal.number, count=seal.count)

    def _partitions(self) -> list[int]:
        with TopicReader(self._settings.kafka, self._topic) as reader:
            return [partition for _, partition in reader.partition_ids([self._topic], _SILENCE_S)]

    def _read(self, partition: int, materials: list[bytes]) -> _Look:
        """Reads a partition from the range of its newest seal on. Blocks.

        Raises:
            KafkaError: The partition could not be read to its end.
        """
        # `error`: if retention removes the start meanwhile, the next look begins at a later record.
        with TopicReader(self._settings.kafka, self._topic, reset="error") as reader:
            read_us, span = self._now_us(), self._span(reader, partition)
            last = self._newest_seal(reader, partition, span, materials)
            found = chain.SealChain(partition, materials)
            faults: list[chain.Breach] = []
            # The range of the newest seal holds its former seal, and every seal that raced with either.
            position, first = span.first if last is None else max(span.first, last.first), span.first
            while position < span.end:
                for records in reader.read({(self._topic, partition): (position, span.end)}, _SILENCE_S):
                    self._raise_if_stopping()
                    for record in records:
                        faults += found.add(as_stored(record))
                position, grown_us, grown = span.end, self._now_us(), self._span(reader, partition)
                if grown.end - span.end > _CLOSE:
                    span, read_us = grown, grown_us
            since_us = found.unsealed.since_us
            due = chain.is_due(found.head, self._now_us(), self._interval_us)
            seal = found.next_seal(first, span.end, self._now_us()) if due else None
        return _Look(seal, read_us, since_us, tuple(_worth_saying(faults)))

    def _newest_seal(
        self, reader: TopicReader, partition: int, span: OffsetSpan, materials: list[bytes]
    ) -> Seal | None:
        def seal_of(message: Message) -> Seal | None:
            self._raise_if_stopping()
            record = as_stored(message)
            seal = chain.genuine(record, materials)
            # A seal of another partition, copied by a stranger, would lead to offsets of that partition.
            return seal if seal is not None and chain.is_in_place(seal, partition, record.offset) else None

        where = (self._topic, partition)
        ranges = {where: (span.first, span.end)}
        last = reader.last_records(ranges, _SILENCE_S, lambda message: seal_of(message) is not None).get(where)
        return None if last is None else seal_of(last)

    def _span(self, reader: TopicReader, partition: int) -> OffsetSpan:
        where = (self._topic, partition)
        return reader.ends.settled([where], _SILENCE_S)[where]

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopped


def _worth_saying(faults: Iterable[chain.Breach]) -> Iterable[chain.Breach]:
    """Returns the faults without the one that every look has: its first seal covers what the look did not read."""
    return (fault for fault in faults if fault.kind is not chain.BreachKind.BEGINNING_GONE)
