"""Publishes the outbox of the registry to `lifecycle.outcomes` and `lifecycle.audit`.

Rule: a row is deleted only after its delivery report. A record may be sent twice, equal to the byte, and is never lost.
Records of one key keep their order: after the first failure of a key, no younger record of the key is sent or deleted.
A row of a newer release, unreadable here, therefore holds up its key until a newer release publishes the row.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from schemas.audit import Audit
from schemas.codec import Message, Unreadable, decode, encode
from schemas.outcome import Outcome
from schemas.topics import AUDIT
from services.adapters.kafka.producer import Ack, KafkaError, Producer
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import OutboxRow
from services.core.ledger import audit

BATCH: Final = 500
_POLL_S: Final = 1.0


class Outbox:
    """Publisher of one process; the registry's lock admits one process at a time."""

    def __init__(
        self, registry: Registry, producer: Producer, *, may_publish: Callable[[], bool], prefix: str, log: Logger
    ) -> None:
        """Prepares the publisher.

        Args:
            registry: Started registry.
            producer: Producer with `acks=all`.
            may_publish: Asked before each batch. Outcomes of a registry that was set back must stay: once published as
                the last records of the partitions, the outcomes would hide the set-back from the proof, since the proof
                compares last records.
            prefix: Prefix of the installation's topics.
            log: Logger of the service.
        """
        self._registry, self._producer, self._log = registry, producer, log
        self._may_publish, self._prefix = may_publish, prefix
        self._wake = asyncio.Event()
        self._stopping = False
        self.fault = ""
        """Reason why outcomes are not published; empty text if publishing works."""

    def wake(self) -> None:
        """Requests a batch now, after rows were written."""
        self._wake.set()

    def stop(self) -> None:
        """Ends `run` after one further batch."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Publishes until `stop`."""
        while True:
            # Read before the batch: rows written until `stop` are in the last batch.
            last = self._stopping
            self._wake.clear()
            found = sent = 0
            if self._may_publish():
                with suppress(RegistryAway):
                    found, sent = await self._registry.drain(self._publish, BATCH)
            if last:
                return
            # A full batch without a single success would be found again at once: rest instead of a busy loop.
            if not (found == BATCH and sent):
                await self._rest()

    async def _publish(self, rows: list[OutboxRow]) -> list[int]:
        """Sends rows and waits for all delivery reports; returns the ids of rows to delete.

        Runs inside the registry's transaction with the lock of the outbox.
        """
        acknowledged: list[int] = []
        failed: dict[str, str] = {}

        def send(row: OutboxRow) -> None:

            def report(result: Ack | KafkaError) -> None:
                # An acknowledged row behind a failed row of its key stays: both are sent again, in order.
                if isinstance(result, Ack) and row.key not in failed:
                    acknowledged.append(row.id)
                else:
                    failed[row.key] = result.reason if isinstance(result, KafkaError) else failed[row.key]

            if row.key in failed:
                return
            try:
                message = _message(row)
            except Unreadable as fault:
                failed[row.key] = f"row {row.id} of the outbox cannot be read by this release: {fault}"
                return
            self._producer.send(self._prefix + row.topic, message, report)

        try:
            for row in rows:
                send(row)
        except KafkaError as error:
            # The producer's queue is full, or the record can never be sent: the rest of the batch comes again.
            failed[""] = error.reason
        await self._producer.flush()
        self.fault = next(iter(failed.values()), "")
        if failed:
            self._log.warning("outcomes not acknowledged", keys=len(failed), why=self.fault)
        return acknowledged

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return


def _message(row: OutboxRow) -> Message:
    """Returns the record of a row.

    Raises:
        Unreadable: this release cannot read the row.
    """
    if row.topic == AUDIT.name:
        return audit.message(decode(Audit, row.value), "provisioner", row.trace)
    outcome = decode(Outcome, row.value)
    # Everything comes from the row, so a repeated record is equal to the byte.
    return encode(
        outcome,
        key=row.key,
        ce_id=f"{row.key}/outcome/{row.seq}",
        source="/genesys-lifecycle/provisioner",
        at_us=outcome.at,
        trace=row.trace,
    )
