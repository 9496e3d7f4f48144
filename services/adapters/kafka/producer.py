"""One librdkafka producer made fit for asyncio: synchronous `send`, delivery reports on the loop, `flush` as a barrier.

Rule: nothing is called durable before its delivery report. A report travels from librdkafka's poll thread to the event
loop through one deque with one wake-up for many (a wake-up per record would cost a third of the throughput).
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
from services.adapters.process.log_throttle import LIBRDKAFKA
from services.adapters.process.settings import Unusable

_ANY: Final = -1
"""librdkafka's RD_KAFKA_PARTITION_UA: the partitioner chooses."""

_ROOM_RECORDS: Final = 20_000
_ROOM_BYTES: Final = 64 << 20
"""`room` waits beyond these: far below what the queue takes (500,000 records, 1 GiB), so that one decision fits."""


_ENDED: Final = 70
"""sysexits' EX_SOFTWARE."""


ABOUT_THE_RECORD: Final = frozenset({
    "MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD", "INVALID_MSG_SIZE", "RECORD_LIST_TOO_LARGE",
    "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "TOPIC_EXCEPTION", "TOPIC_AUTHORIZATION_FAILED",
    "POLICY_VIOLATION",
})  # fmt: skip
"""librdkafka's names for what Kafka has against one record or one topic, and not because it is in trouble itself."""

_DENIALS: Final = {
    "TOPIC_AUTHORIZATION_FAILED": Resource.TOPIC,
    "GROUP_AUTHORIZATION_FAILED": Resource.GROUP,
    "CLUSTER_AUTHORIZATION_FAILED": None,
}
"""librdkafka's names for what the cluster's authorizer refuses, and on what. No request of ours needs a right on the
cluster: a producer that may write a topic may be idempotent (Kafka 3.0, KIP-679)."""


UNSEEN: Final = "_UNSEEN"
NOT_AS_TABLE: Final = "_NOT_AS_TABLE"
"""Reasons of our own for a record that was not sent: its topic was not seen yet, or is not as the table says."""


class KafkaError(Exception):
    """A record was not written, or may not have been, or the cluster does not do what it was asked.

    Rule: its kinds are in this module. It is compiled (docs/decisions/0017), and a class of another module that is not
    cannot be made where it derives from this one.

    Attributes:
        reason: Why: a sentence, or librdkafka's own name for it.
        code: librdkafka's own name; the reason itself where there is none.
    """

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code or reason


class AccessDenied(KafkaError):
    """The cluster does not allow it: the reason names the right that is missing, and who prints the line for it."""


class Unreached(KafkaError):
    """No broker answers, or not the one that leads a partition; the reason is a sentence."""


class LoginRefused(KafkaError):
    """A broker answers and refuses this principal; the reason is a sentence without a secret."""


class Electing(KafkaError):
    """A partition has no leader at this moment; ask again."""


def not_allowed(rights: str, principal: str = "the principal of this client") -> str:
    """The sentence about rights that are missing, with the remedy."""
    return f"{principal} lacks {rights}; `lifecycle topics acls` prints the lines that give it"


def is_denial(error: confluent_kafka.KafkaError | None) -> bool:
    """True if the cluster's authorizer refuses."""
    return error is not None and error.name() in _DENIALS


def fault(error: confluent_kafka.KafkaError, *needed: Right) -> KafkaError:
    """The error of ours for one of librdkafka's.

    Args:
        error: Of a request.
        needed: The rights that the request needs; at least one.

    Returns:
        A `Denied` that names the right that is missing, or a KafkaError with librdkafka's name.
    """
    if not is_denial(error):
        return KafkaError(error.name())
    refused = [right for right in needed if right.resource is _DENIALS[error.name()]] or needed
    return AccessDenied(not_allowed(", ".join(map(str, refused))), error.name())


def to_read(topic: str, group: str | None = None) -> tuple[Right, Right]:
    """Returns the rights that a reader needs.

    Args:
        topic: With the prefix.
        group: The consumer group, with the prefix; None: the reader has none.
    """
    looks = Right(Resource.GROUP, looks_group(topic), Operation.DESCRIBE)
    member = looks if group is None else Right(Resource.GROUP, group, Operation.READ)
    return Right(Resource.TOPIC, topic, Operation.READ), member


class QueueFull(KafkaError):
    """The producer's queue is full: nothing was taken; wait for acknowledgements and try again."""


class Ack:
    """Where a record now is, on every in-sync replica; asked of librdkafka only by whoever wants to know."""

    __slots__ = ("_written",)

    def __init__(self, written: Any) -> None:
        self._written = written

    @property
    def topic(self) -> str:
        """Its whole name."""
        return cast("str", self._written.topic())

    @property
    def partition(self) -> int:
        """Its number."""
        return cast("int", self._written.partition())

    @property
    def offset(self) -> int:
        """There."""
        return cast("int", self._written.offset())


OnReport = Callable[[Ack | KafkaError], None]
"""Called on the event loop with the delivery report."""


class _Sent:
    """One record on its way; librdkafka calls it with the delivery report, on the poll thread."""

    __slots__ = ("_come", "error", "number", "on_report", "size_bytes", "written")

    def __init__(
        self, number: int, size_bytes: int, on_report: OnReport | None, come: Callable[["_Sent"], None]
    ) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.on_report = on_report
        self._come = come
        self.error: Any = None
        self.written: Any = None

    def __call__(self, error: Any, written: Any) -> None:
        self.error, self.written = error, written
        self._come(self)


class Producer:
    """Every record a service writes goes through one of these. Use from one event loop only."""

    def __init__(self, config: dict[str, Any], *, linger_ms: float, timeout_ms: int) -> None:
        """Start the poll thread.

        Args:
            config: librdkafka's connection settings (`bootstrap.servers`, security).
            linger_ms: How long a batch may wait for company.
            timeout_ms: After this a record that is not acknowledged is reported as failed.

        Raises:
            Unusable: librdkafka does not know a setting, or not its value.
        """
        self._loop = asyncio.get_running_loop()
        ours = {
            "allow.auto.create.topics": False,  # librdkafka's default lets a producer make what it asks for
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
            self._producer = confluent_kafka.Producer(config | ours, logger=LIBRDKAFKA)
        except confluent_kafka.KafkaException as error:
            raise Unusable(f"KAFKA_CONFIG: {error.args[0].str()}") from None
        self._reports: deque[_Sent] = deque()
        self._woken = False
        self._sent = 0
        self._open: dict[int, None] = {}
        self._open_bytes = 0
        self._queueing: list[asyncio.Future[None]] = []
        self._barriers: list[tuple[int, asyncio.Future[None]]] = []
        self._stopping = False
        self._poller = threading.Thread(target=self._poll, name="kafka-poll", daemon=True)
        self._poller.start()

    @property
    def unacknowledged(self) -> int:
        """Records sent and not yet reported on."""
        return len(self._open)

    @property
    def fatal(self) -> str:
        """Why nothing will ever be written again; empty text while something may be."""
        return "" if self._fatal is None else str(self._fatal.str())

    @property
    def sent(self) -> int:
        """Records taken so far."""
        return self._sent

    def send(
        self, topic: str, message: Message, on_report: OnReport | None = None, partition: int | None = None
    ) -> None:
        """Hand one record over; returns at once.

        Raises:
            QueueFull: nothing was taken.
            KafkaError: the record can never be sent (too large, unknown topic).
        """
        key, value, headers = message
        number, size_bytes = self._sent + 1, len(value) + (0 if key is None else len(key))
        sent = _Sent(number, size_bytes, on_report, self._come)
        where = _ANY if partition is None else partition
        try:
            self._producer.produce(
                topic, value, key, partition=where, on_delivery=sent, headers=cast("Any", headers or [])
            )  # the stub wants an invariant list of wider tuples
        except BufferError:
            raise QueueFull("queue full") from None
        except confluent_kafka.KafkaException as error:
            told = self._fatal if self._fatal is not None and error.args[0].fatal() else error.args[0]
            raise fault(told, _to_write(topic)) from None
        self._sent = number
        self._open[number] = None
        self._open_bytes += size_bytes

    async def room(self) -> None:
        """Wait while so much is unacknowledged that a writer should pause; returns at once otherwise."""
        while len(self._open) > _ROOM_RECORDS or self._open_bytes > _ROOM_BYTES:
            future: asyncio.Future[None] = self._loop.create_future()
            self._queueing.append(future)
            await future

    async def acked(self, topic: str, message: Message, partition: int | None = None) -> Ack:
        """Send one record and wait for its delivery report.

        Raises:
            KafkaError: it was not written, or may not have been.
        """
        future: asyncio.Future[Ack] = self._loop.create_future()

        def settle(result: Ack | KafkaError) -> None:
            if future.done():
                return
            if isinstance(result, KafkaError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.send(topic, message, settle, partition)
        return await future

    async def flush(self) -> None:
        """Wait until everything sent so far was reported on (failures included: they went to their `on_report`)."""
        if self._open:
            future: asyncio.Future[None] = self._loop.create_future()
            self._barriers.append((self._sent, future))
            await future

    async def close(self, timeout_s: float) -> int:
        """Flush for at most `timeout_s`, stop the thread and return how many records were never reported on."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), timeout_s)
        self._stopping = True
        await asyncio.to_thread(self._poller.join, 2.0)
        return len(self._open)

    def settle(self) -> None:
        """Tell every report that has come. Whoever judges by the clock asks for it first: a busy loop may be behind."""
        if self._reports:
            self._drain()

    def _come(self, sent: _Sent) -> None:
        """A report has come, on the poll thread."""
        self._reports.append(sent)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._drain)

    def _poll(self) -> None:
        try:
            while not self._stopping:
                self._poll_once()
        except:  # noqa: E722 - also what is no exception (confluent_kafka's KafkaError)
            if self._stopping or self._loop.is_closed():
                return
            # Without this thread no report comes any more: whoever waits for one would wait for ever.
            LIBRDKAFKA.critical("the thread of delivery reports ended; the process ends with it", exc_info=True)
            os._exit(_ENDED)

    def _poll_once(self) -> None:
        try:
            self._producer.poll(0.1)
        except confluent_kafka.KafkaException as error:
            if not (error.args[0].fatal() and is_denial(error.args[0])):
                raise
            self._fatal = error.args[0]  # raised once; reports go on coming, and each names the right

    def _drain(self) -> None:
        # Cleared first: a report that comes while we drain asks for a wake-up of its own.
        self._woken = False
        while self._reports:
            sent = self._reports.popleft()
            del self._open[sent.number]
            self._open_bytes -= sent.size_bytes
            if sent.on_report is not None:
                sent.on_report(Ack(sent.written) if sent.error is None else _unwritten(sent))
        queueing, self._queueing = self._queueing, []
        for future in queueing:
            if not future.done():
                future.set_result(None)
        if self._barriers:
            self._open_barriers()

    def _open_barriers(self) -> None:
        # Not at each wake-up: the front of a dict from which much was taken is slow to find.
        oldest = next(iter(self._open), self._sent + 1)
        for barrier in [b for b in self._barriers if b[0] < oldest]:
            self._barriers.remove(barrier)
            if not barrier[1].done():
                barrier[1].set_result(None)


def _unwritten(sent: _Sent) -> KafkaError:
    return fault(sent.error, _to_write(cast("str", sent.written.topic())))


def _to_write(topic: str) -> Right:
    return Right(Resource.TOPIC, topic, Operation.WRITE)
