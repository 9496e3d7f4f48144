"""Registry → `lifecycle.outcomes` and `lifecycle.audit`: in order within a key, deleted after the delivery report.

Rule: a record may be sent twice, equal to the byte; it is never lost, and never first sent before an older one of its
key. What this release cannot read waits for one that can, and the rest of its key behind it.
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
    """One process of all publishes at a time; the registry decides which."""

    def __init__(self, registry: Registry, producer: Producer, *, prefix: str, log: Logger) -> None:
        """Take the two ends."""
        self._registry, self._producer, self._log = registry, producer, log
        self._prefix = prefix
        self._wake = asyncio.Event()
        self._stopping = False
        self.may_publish: Callable[[], bool] = lambda: True
        """Asked before sayings leave: those of a registry that was set back would hide that it was."""
        self.fault = ""
        """Why outcomes do not leave; empty text while they do."""

    def wake(self) -> None:
        """Outcomes were written."""
        self._wake.set()

    def stop(self) -> None:
        """Publish what is there, once more, and end."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Publish until `stop`."""
        while True:
            last = self._stopping
            self._wake.clear()
            found = sent = 0
            if self.may_publish():
                with suppress(RegistryAway):
                    found, sent = await self._registry.drain(self._publish, BATCH)
            if last:
                return
            if not (found == BATCH and sent):
                await self._rest()

    async def _publish(self, rows: list[OutboxRow]) -> list[int]:
        acknowledged: list[int] = []
        failed: dict[str, str] = {}

        def send(row: OutboxRow) -> None:

            def report(result: Ack | KafkaError) -> None:
                if isinstance(result, Ack) and row.key not in failed:
                    acknowledged.append(row.id)
                else:
                    failed[row.key] = result.reason if isinstance(result, KafkaError) else failed[row.key]

            if row.key in failed:
                return  # never before an older one of its key
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
    if row.topic == AUDIT.name:
        return audit.message(decode(Audit, row.value), "provisioner")
    outcome = decode(Outcome, row.value)
    return encode(
        outcome,
        key=row.key,
        ce_id=f"{row.key}/outcome/{row.seq}",
        source="/genesys-lifecycle/provisioner",
        at_us=outcome.at,
    )
