"""Adapts one librdkafka producer to asyncio: synchronous `send`, delivery reports on the event loop, commit barrier.

Rule: no record is durable before its delivery report.

Threads: librdkafka calls back on the poll thread, which appends each report to one deque and wakes the event loop once
for many reports (`_delivered`, `_drain`). A wake-up per record would cost a third of the throughput. Appending to a
deque is atomic, so no lock is needed. Apart from `_drain_scheduled`, `_fatal` and `_stopping`, all other state is
touched on the event loop only.

Numbers: every record gets the next number. The unreported records are the keys of a dict in the order of sending, so a
barrier is open when its number is below the first key.

The module is compiled by mypyc (docs/decisions/0017). All subclasses of `KafkaError` must stay in this module.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

import confluent_kafka

from schemas.codec import Message
from schemas.rights import Operation, Resource, Right
from schemas.topics import PARTITIONER, RECORD_MAX_BYTES, looks_group
from services.adapters.process.errors import Unusable
from services.adapters.process.log_throttle import LIBRDKAFKA

_PARTITION_UNASSIGNED: Final = -1
"""librdkafka's RD_KAFKA_PARTITION_UA: the partitioner chooses the partition by the key."""

_ROOM_RECORDS: Final = 20_000
_ROOM_BYTES: Final = 64 << 20
"""Limits above which `room` waits. Both are far below the capacity of the queue (500,000 records, 1 GiB), so that all
records of one decision still fit."""


_EX_SOFTWARE: Final = 70
"""Exit status: sysexits' EX_SOFTWARE."""


ABOUT_THE_RECORD: Final = frozenset({
    "MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD", "INVALID_MSG_SIZE", "RECORD_LIST_TOO_LARGE",
    "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "TOPIC_EXCEPTION", "TOPIC_AUTHORIZATION_FAILED",
    "POLICY_VIOLATION",
})  # fmt: skip
"""librdkafka's names of errors that concern one record or one topic, and say nothing about the health of the
cluster."""

DENIALS: Final = {
    "TOPIC_AUTHORIZATION_FAILED": Resource.TOPIC,
    "GROUP_AUTHORIZATION_FAILED": Resource.GROUP,
    "CLUSTER_AUTHORIZATION_FAILED": None,
}
"""librdkafka's names for refusals of the authorizer, and the kind of resource of each. No request of ours needs a right
on the cluster: since Kafka 3.0 (KIP-679) the right to write a topic includes idempotent writes."""


UNSEEN: Final = "_UNSEEN"
NOT_AS_TABLE: Final = "_NOT_AS_TABLE"
"""Reasons of our own for a record that was not sent: its topic was not seen yet, or differs from the topic table."""


class KafkaError(Exception):
    """A record was not written or may not have been written, or the cluster refused a request.

    Rule: all subclasses are in this module. mypyc compiles the module (docs/decisions/0017), and an uncompiled class
        with
    a compiled base class raises TypeError when instantiated.

    Attributes:
        reason: A sentence, or librdkafka's name of the error.
        code: librdkafka's name of the error; the reason itself for an error without a name.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code or reason


class AccessDenied(KafkaError):
    """The authorizer refused a request. The reason names the missing right and the command that prints the remedy."""


class Unreached(KafkaError):
    """No broker answers, or the leader of a partition does not answer; the reason is a sentence."""


class LoginRefused(KafkaError):
    """A broker answers and refuses the login; the reason is a sentence without a secret."""


class Electing(KafkaError):
    """A partition has no leader at this moment; the request may be repeated."""


def missing_rights_text(rights: str, principal: str = "the principal of this client") -> str:
    """Returns the sentence about missing rights, with the remedy."""
    return f"{principal} lacks {rights}; `lifecycle topics acls` prints the lines that give it"


def is_denial(error: confluent_kafka.KafkaError | None) -> bool:
    """True if the error is a refusal of the cluster's authorizer."""
    return error is not None and error.name() in DENIALS


def fault(error: confluent_kafka.KafkaError, *needed: Right) -> KafkaError:
    """Returns our error for an error of librdkafka.

    Args:
        error: The error of a request.
        needed: The rights for the request; at least one.

    Returns:
        An `AccessDenied` that names the missing right, or a `KafkaError` with librdkafka's name.
    """
    if not is_denial(error):
        return KafkaError(error.name())
    # The code says only the kind of resource, so every needed right on that kind is named; if none fits, all are.
    matching = [right for right in needed if right.resource is DENIALS[error.name()]] or needed
    return AccessDenied(missing_rights_text(", ".join(map(str, matching))), error.name())


def rights_to_read(topic: str, group: str | None = None) -> tuple[Right, Right]:
    """Returns the rights of a reader.

    Args:
        topic: Full name, with the prefix.
        group: Consumer group, with the prefix; None: a reader without a group.
    """
    # librdkafka's consumers need a group name even without joining the group; see `looks_group`.
    describe_group = Right(Resource.GROUP, looks_group(topic), Operation.DESCRIBE)
    member = describe_group if group is None else Right(Resource.GROUP, group, Operation.READ)
    return Right(Resource.TOPIC, topic, Operation.READ), member


class QueueFull(KafkaError):
    """The producer's queue is full and the record was not taken; wait for acknowledgements and repeat."""


class Ack:
    """The position of an acknowledged record, which every in-sync replica has.

    librdkafka is asked when a property is read, because most callers need none of the three.
    """

    __slots__ = ("_written",)

    def __init__(self, written: Any) -> None:
        self._written = written

    @property
    def topic(self) -> str:
        """Full name of the topic."""
        return cast("str", self._written.topic())

    @property
    def partition(self) -> int:
        """Number of the partition."""
        return cast("int", self._written.partition())

    @property
    def offset(self) -> int:
        """Offset of the record in its partition."""
        return cast("int", self._written.offset())


OnReport = Callable[[Ack | KafkaError], None]
"""Called on the event loop with the delivery report of a record."""


class _PendingRecord:
    """One record without a delivery report. librdkafka calls the object with the report, on the poll thread.

    The class has slots, because one object is made per record.
    """

    __slots__ = ("_delivered", "error", "number", "on_report", "size_bytes", "written")

    def __init__(
        self, number: int, size_bytes: int, on_report: OnReport | None, delivered: Callable[["_PendingRecord"], None]
    ) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.on_report = on_report
        self._delivered = delivered
        self.error: Any = None
        self.written: Any = None

    def __call__(self, error: Any, written: Any) -> None:
        self.error, self.written = error, written
        self._delivered(self)


class Producer:
    """The only producer of a service: every record is written through this class. Use from one event loop only."""

    def __init__(self, config: dict[str, Any], *, linger_ms: float, timeout_ms: int) -> None:
        """Creates the librdkafka producer and starts the poll thread.

        Args:
            config: librdkafka's connection settings (`bootstrap.servers`, security).
            linger_ms: Longest wait of a batch for further records.
            timeout_ms: Time limit of a record from `send` to the acknowledgement; then the report is an error.

        Raises:
            Unusable: librdkafka does not accept the name or the value of a setting.
        """
        self._loop = asyncio.get_running_loop()
        ours = {
            "allow.auto.create.topics": False,  # librdkafka's default for a producer is True
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "message.timeout.ms": timeout_ms,
            "partitioner": PARTITIONER,
            "message.max.bytes": RECORD_MAX_BYTES,
            "queue.buffering.max.messages": 500_000,
        }
        self._fatal: confluent_kafka.KafkaError | None = None
        try:
            # Our settings win over the operator's, because the promises of the services depend on them.
            self._producer = confluent_kafka.Producer(config | ours, logger=LIBRDKAFKA)
        except confluent_kafka.KafkaException as error:
            raise Unusable(f"KAFKA_CONFIG: {error.args[0].str()}") from None
        self._reports: deque[_PendingRecord] = deque()
        self._drain_scheduled = False
        self._sent = 0
        self._unreported: dict[int, None] = {}
        self._unreported_bytes = 0
        self._room_waiters: list[asyncio.Future[None]] = []
        self._barriers: list[tuple[int, asyncio.Future[None]]] = []
        self._stopping = False
        self._poller = threading.Thread(target=self._poll, name="kafka-poll", daemon=True)
        self._poller.start()

    @property
    def unacknowledged(self) -> int:
        """The number of records without a delivery report."""
        return len(self._unreported)

    @property
    def fatal(self) -> str:
        """The text of the error after which no record will ever be written again; empty before such an error."""
        return "" if self._fatal is None else str(self._fatal.str())

    @property
    def sent(self) -> int:
        """The number of records taken so far."""
        return self._sent

    def send(
        self, topic: str, message: Message, on_report: OnReport | None = None, partition: int | None = None
    ) -> None:
        """Puts one record into the queue; returns at once.

        Args:
            topic: Full name.
            message: Key, value and headers.
            on_report: Called on the event loop with the delivery report.
            partition: The target partition; None: the partitioner chooses by the key.

        Raises:
            QueueFull: The record was not taken.
            KafkaError: The record can never be sent (too large, unknown topic), or the producer failed for good.
        """
        key, value, headers = message
        number, size_bytes = self._sent + 1, len(value) + (0 if key is None else len(key))
        sent = _PendingRecord(number, size_bytes, on_report, self._delivered)
        target = _PARTITION_UNASSIGNED if partition is None else partition
        try:
            self._producer.produce(
                topic, value, key, partition=target, on_delivery=sent, headers=cast("Any", headers or [])
            )  # the stub wants an invariant list of wider tuples
        except BufferError:
            raise QueueFull("queue full") from None
        except confluent_kafka.KafkaException as error:
            # After a fatal error librdkafka answers every call with one general code; the first error has the cause.
            cause = self._fatal if self._fatal is not None and error.args[0].fatal() else error.args[0]
            raise fault(cause, _to_write(topic)) from None
        # Only a record that was taken is counted; the report cannot come earlier, because `_drain` runs on this thread.
        self._sent = number
        self._unreported[number] = None
        self._unreported_bytes += size_bytes

    async def wait_for_room(self) -> None:
        """Waits until the unreported records are below the limits of `room`; returns at once if below already."""
        while len(self._unreported) > _ROOM_RECORDS or self._unreported_bytes > _ROOM_BYTES:
            future: asyncio.Future[None] = self._loop.create_future()
            self._room_waiters.append(future)
            await future

    async def send_and_wait(self, topic: str, message: Message, partition: int | None = None) -> Ack:
        """Sends one record and waits for its delivery report.

        Raises:
            KafkaError: The record was not written, or may not have been written.
        """
        future: asyncio.Future[Ack] = self._loop.create_future()

        def settle(result: Ack | KafkaError) -> None:
            if future.done():
                return  # the caller was cancelled
            if isinstance(result, KafkaError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.send(topic, message, settle, partition)
        return await future

    async def flush(self) -> None:
        """Waits until every record sent so far has a delivery report, successful or not."""
        if self._unreported:
            future: asyncio.Future[None] = self._loop.create_future()
            self._barriers.append((self._sent, future))
            await future

    async def close(self, timeout_s: float) -> int:
        """Flushes for at most `timeout_s`, stops the poll thread, and returns the number of unreported records."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), timeout_s)
        self._stopping = True
        # The poll thread notices the request within 0.1 s, unless librdkafka hangs.
        await asyncio.to_thread(self._poller.join, 2.0)
        return len(self._unreported)

    def run_callbacks(self) -> None:
        """Calls the callbacks of all reports that have arrived.

        A caller that compares ages with the clock must call this method first: a busy event loop may be behind the
        reports.
        """
        if self._reports:
            self._drain()

    def _delivered(self, sent: _PendingRecord) -> None:
        """Takes over a delivery report; runs on the poll thread."""
        self._reports.append(sent)
        # The report is appended before the flag is read, and `_drain` clears the flag before it empties the deque.
        # Either this thread sees a cleared flag, or `_drain` sees the report.
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon_threadsafe(self._drain)

    def _poll(self) -> None:
        try:
            while not self._stopping:
                self._poll_once()
        except:  # noqa: E722 - also confluent_kafka's KafkaError, which is not an Exception
            if self._stopping or self._loop.is_closed():
                return
            # Without this thread no report arrives any more, and every waiting caller would wait for ever.
            LIBRDKAFKA.critical("the thread of delivery reports ended; the process ends with it", exc_info=True)
            os._exit(_EX_SOFTWARE)

    def _poll_once(self) -> None:
        try:
            self._producer.poll(0.1)
        except confluent_kafka.KafkaException as error:
            if not (error.args[0].fatal() and is_denial(error.args[0])):
                raise
            # librdkafka raises this once. Reports still arrive afterwards, and each names the missing right.
            self._fatal = error.args[0]

    def _drain(self) -> None:
        # Cleared first: a report that arrives during the loop schedules a drain of its own.
        self._drain_scheduled = False
        while self._reports:
            sent = self._reports.popleft()
            del self._unreported[sent.number]
            self._unreported_bytes -= sent.size_bytes
            if sent.on_report is not None:
                sent.on_report(Ack(sent.written) if sent.error is None else _undelivered(sent))
        waiters, self._room_waiters = self._room_waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)
        if self._barriers:
            self._release_barriers()

    def _release_barriers(self) -> None:
        # Only while a barrier waits: finding the first key of a dict is slow after many deletions at its front.
        oldest = next(iter(self._unreported), self._sent + 1)
        for barrier in [b for b in self._barriers if b[0] < oldest]:
            self._barriers.remove(barrier)
            if not barrier[1].done():
                barrier[1].set_result(None)


def _undelivered(sent: _PendingRecord) -> KafkaError:
    return fault(sent.error, _to_write(cast("str", sent.written.topic())))


def _to_write(topic: str) -> Right:
    return Right(Resource.TOPIC, topic, Operation.WRITE)
