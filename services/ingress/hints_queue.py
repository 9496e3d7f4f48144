"""Hints from a queue: a message becomes a request for a re-check, or asks nothing, and is then deleted.

Rule: a message is deleted once nothing of it can be lost: when the record is durable, or when an authentic notification
asks nothing. A message that is no envelope, or names a foreign organisation or account, is never deleted. Such a
message stays hidden for longer after each receipt, until the queue's `RedrivePolicy` moves it to a dead-letter queue
(docs/decisions/0044).

Approach: a few long polls at once, each of which settles its batch before the next poll. While Kafka takes nothing,
nothing is received, and the batches in hand are kept: their visibility timeout is extended. So an outage of Kafka
raises no count of receipts, and sends no message to the dead-letter queue. A message whose record is written and whose
deletion fails comes again, and its second record has an equal id.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256
from typing import Final

from schemas import hint
from schemas.codec import Message
from schemas.hint import IntegrationAudit
from schemas.webhook import Malformed
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.sqs import LONG_POLL_S, Queue, QueueFault, QueueMessage
from services.core.delivery.hint_rule import HintBinding, judge, read_after_us
from services.ingress import records
from services.ingress.recent import RECHECK_MAX, RECHECK_US, WRITTEN_MAX, ExpiringSet

POLLS_AT_ONCE: Final = 4
"""Long polls of a process: at most 40 messages are in hand, some hundred a second."""
VISIBLE_S: Final = 60
"""Visibility timeout of a message in hand; extended every third of it. A killed process holds a message no longer."""

_REPEATED_US: Final = 86_400_000_000
"""EventBridge repeats a delivery to a queue for up to a day."""
_LEFT_FIRST_S: Final = 30
_LEFT_MOST_S: Final = 900
"""Seconds that a refused message stays hidden: after the first receipt, doubled after each further one, and at most."""
_PAUSE_FIRST_S: Final = 1.0
_PAUSE_MOST_S: Final = 60.0
"""Seconds from a failed call to the next: at first, doubled after each further failure, and at most; with jitter."""
_LOOK_S: Final = 0.5
"""Seconds between two looks if Kafka takes records, or if a flood has passed."""
_MEASURE_S: Final = 30.0
"""Seconds between two readings of the queue's attributes."""
_GRACE_S: Final = 3.0
"""Seconds that the batches in hand have at the end of the process; then they are given back."""
_GIVE_BACK_S: Final = 2.0
_GIVEN_BACK_AFTER_S: Final = 5
"""Seconds until another reader sees a message given back: not before the polls of this process have ended with it."""
_LOGGED_US: Final = 60_000_000
_REASONS_MAX: Final = 100
"""A reason of a refused message, or of a failed write, is logged at most once a minute; so many reasons are kept."""

_COUNTS: Final = {
    "waiting": "ApproximateNumberOfMessages",
    "received": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}
"""State of a message to Amazon's name of the attribute with the number."""


class MessageResult(StrEnum):
    """The result of a receipt of a message."""

    WRITTEN = "written"
    DUPLICATE = "duplicate"
    """The audit was written before by this process."""
    IGNORED_TOPIC = "ignored_topic"
    IGNORED_ENTITY = "ignored_entity"
    IGNORED_ACTION = "ignored_action"
    """An authentic notification that asks nothing, as on the path of hints."""
    UNBOUND = "unbound"
    """An organisation or an AWS account outside the lists."""
    MALFORMED = "malformed"
    """No envelope, or an audit of an integration without a readable id, time or entity."""


_LEFT: Final = frozenset({MessageResult.UNBOUND, MessageResult.MALFORMED})
"""Results after which the message stays in the queue."""


class Backoff:
    """The pauses after failures in a row: doubled, with jitter."""

    def __init__(self) -> None:
        """Begins with the shortest pause."""
        self._next_s = _PAUSE_FIRST_S

    def pause_s(self) -> float:
        """Returns the seconds until the next try."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, _PAUSE_MOST_S)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """Notes a success."""
        self._next_s = _PAUSE_FIRST_S


class HintReader:
    """Reads a queue of hints. Use one per process, from the event loop."""

    def __init__(
        self,
        queue: Queue,
        producer: Producer,
        binding: HintBinding,
        log: Logger,
        *,
        received: str,
        unwritable: Callable[[], str],
        now_us: Callable[[], int],
    ) -> None:
        """Prepares; `run` begins.

        Args:
            queue: The queue.
            producer: Writes the records.
            binding: Organisations and accounts of which hints are taken.
            log: Gets a line for each new fault.
            received: Full name of the topic.
            unwritable: Returns why Kafka takes no record now; empty text if Kafka does.
            now_us: Our clock, microseconds UTC.
        """
        self._queue, self._producer, self._binding, self._log = queue, producer, binding, log
        self._received, self._unwritable, self._now_us = received, unwritable, now_us
        self._recent_audits = ExpiringSet(WRITTEN_MAX, _REPEATED_US)
        self._recent_keys = ExpiringSet(RECHECK_MAX, RECHECK_US)
        self._logged = ExpiringSet(_REASONS_MAX, _LOGGED_US)
        self._batches: set[asyncio.Task[None]] = set()
        self._faults = {"receive": "not asked yet"}
        self._depth: dict[tuple[str, ...], float] = {}
        metrics.HINTS_QUEUE.set_function(lambda: self._depth)

    @property
    def fault(self) -> str:
        """Why messages are not received, or not deleted; empty without a fault."""
        return self._faults.get("receive", "") or self._faults.get("delete", "")

    async def run(self) -> None:
        """Reads until cancelled; then settles the batches in hand, or gives them back to the queue."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(POLLS_AT_ONCE):
                    tasks.create_task(self._poll())
                tasks.create_task(self._measure())
        finally:
            if self._batches:
                await asyncio.wait(self._batches, timeout=_GRACE_S)
            for batch in self._batches:
                batch.cancel()
            await asyncio.gather(*self._batches, return_exceptions=True)

    async def _poll(self) -> None:
        """Receives and settles batch by batch."""
        # After the start and after a fault the queue answers at once, so that `/readyz` does not wait for a long poll.
        backoff, wait_s = Backoff(), 0
        while True:
            if self._unwritable():
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                messages = await self._queue.receive(wait_s=wait_s, visible_after_s=VISIBLE_S)
            except QueueFault as fault:
                self._failed("receive", fault)
                wait_s = 0
                await asyncio.sleep(backoff.pause_s())
                continue
            self._succeeded("receive")
            backoff.reset()
            wait_s = LONG_POLL_S
            if messages:
                batch = asyncio.create_task(self._settle_batch(messages), name="batch")
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
                # The end of the process cancels the poll, and leaves the batch some seconds.
                await asyncio.shield(batch)

    async def _settle_batch(self, messages: Sequence[QueueMessage]) -> None:
        """Settles received messages: each is deleted, or left to the queue."""
        metrics.HINTS_IN_HAND.inc(len(messages))
        keeping = asyncio.create_task(self._keep(messages), name="keep")
        try:
            results = await asyncio.gather(*map(self._settle, messages))
            settled = list(zip(messages, results, strict=True))
            await self._delete([message for message, result in settled if result not in _LEFT])
            await self._show({message: _left_s(message) for message, result in settled if result in _LEFT})
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._show(dict.fromkeys(messages, _GIVEN_BACK_AFTER_S)), _GIVE_BACK_S)
            raise
        finally:
            keeping.cancel()
            metrics.HINTS_IN_HAND.dec(len(messages))

    async def _settle(self, message: QueueMessage) -> MessageResult:
        """Returns the result of a message, once the record is durable if one is written."""
        judged = self._judge(message)
        result = await self._ask(judged, message) if isinstance(judged, IntegrationAudit) else judged
        metrics.HINTS_MESSAGES.labels(result).inc()
        return result

    def _judge(self, message: QueueMessage) -> IntegrationAudit | MessageResult:
        """Returns the re-check that a message asks, or the result of a message that asks none."""
        try:
            envelope = hint.parse(message.body)
            if not self._binding.covers(envelope.org_id, envelope.account):
                self._left(message, MessageResult.UNBOUND, "organisation or account is not in the lists of HINTS_SQS_…")
                return MessageResult.UNBOUND
            judged = judge(envelope)
        except Malformed as fault:
            self._left(message, MessageResult.MALFORMED, str(fault))
            return MessageResult.MALFORMED
        return judged if isinstance(judged, IntegrationAudit) else MessageResult(judged)

    async def _ask(self, audit: IntegrationAudit, message: QueueMessage) -> MessageResult:
        """Writes the request for a re-check, once for an audit; returns when the record is durable."""
        # A hash, since ids of strangers have any length.
        digest = sha256(f"{audit.key}/{audit.audit_id}".encode()).digest()
        if self._recent_audits.knows(digest, self._now_us()):
            return MessageResult.DUPLICATE
        # A flood of new keys waits in the queue: Genesys allows a number of reads a minute.
        while not self._recent_keys.knows(audit.key, self._now_us()) and self._recent_keys.full:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        self._recent_keys.add(audit.key, self._now_us())
        await self._write(records.hinted_recheck(audit, read_after_us(audit.at_us), self._now_us()))
        self._recent_audits.add(digest, self._now_us())
        metrics.HINTS_WRITTEN_S.observe(max(0, self._now_us() - message.sent_us) / 1_000_000)
        return MessageResult.WRITTEN

    async def _write(self, record: Message) -> None:
        """Writes a record; tries again until Kafka has acknowledged one."""
        while True:
            try:
                if not self._unwritable():
                    await self._producer.send_and_wait(self._received, record)
                    return
            except KafkaError as error:
                if self._is_new(error.code):
                    self._log.warning("unwritten", reason=error.code)
            await asyncio.sleep(_LOOK_S)

    async def _delete(self, messages: Sequence[QueueMessage]) -> None:
        """Deletes messages; tries again while the call fails. A message that is not deleted comes again."""
        backoff = Backoff()
        while messages:
            try:
                await self._queue.delete(messages)
            except QueueFault as fault:
                self._failed("delete", fault)
                await asyncio.sleep(backoff.pause_s())
            else:
                self._succeeded("delete")
                return

    async def _keep(self, messages: Sequence[QueueMessage]) -> None:
        """Keeps messages hidden from other readers until cancelled."""
        while True:
            await asyncio.sleep(VISIBLE_S / 3)
            await self._show(dict.fromkeys(messages, VISIBLE_S))

    async def _show(self, after_s: Mapping[QueueMessage, int]) -> None:
        """Makes messages visible after their seconds; after a failed call their visibility timeout ends as it was."""
        if not after_s:
            return
        try:
            await self._queue.show_after(after_s)
        except QueueFault as fault:
            self._failed("keep", fault)
        else:
            self._succeeded("keep")

    async def _measure(self) -> None:
        """Reads the numbers of messages every `_MEASURE_S` seconds, and warns once of a missing redrive policy."""
        has_warned = False
        while True:
            try:
                attributes = await self._queue.attributes()
            except QueueFault as fault:
                self._depth = {}
                self._failed("measure", fault)
            else:
                self._depth = {(state,): float(attributes.get(name, 0)) for state, name in _COUNTS.items()}
                self._succeeded("measure")
                if not (has_warned or "RedrivePolicy" in attributes):
                    has_warned = True
                    why = "messages that cannot be read stay until the queue's retention ends, and nobody sees them"
                    self._log.warning("queue without a dead-letter queue", why=why)
            await asyncio.sleep(_MEASURE_S)

    def _left(self, message: QueueMessage, result: MessageResult, why: str) -> None:
        """Logs a message that stays in the queue; no part of its body."""
        if self._is_new(result):
            self._log.warning("message left in the queue", reason=result, message_id=message.message_id, why=why)

    def _is_new(self, reason: str) -> bool:
        """True if no line with this reason was logged within a minute."""
        if self._logged.knows(reason, self._now_us()):
            return False
        self._logged.add(reason, self._now_us())
        return True

    def _failed(self, act: str, fault: QueueFault) -> None:
        """Counts a failed call, and logs each new fault once."""
        metrics.HINTS_FAULTS.labels(act).inc()
        if self._faults.get(act) != str(fault):
            self._log.warning("queue fails", why=str(fault))
        self._faults[act] = str(fault)

    def _succeeded(self, act: str) -> None:
        if self._faults.pop(act, None) and not self._faults:
            self._log.info("queue answers")


def _left_s(message: QueueMessage) -> int:
    """Returns the seconds that a refused message stays hidden."""
    return min(_LEFT_MOST_S, _LEFT_FIRST_S << min(message.receipts - 1, 10))
