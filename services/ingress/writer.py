"""Durable writes with a deadline: to Kafka, or to the spool while Kafka is slow or away.

Problem: every delivery must be answered within 2.7 s, and 200 must mean durable. Kafka may acknowledge late, or never,
and a record without an acknowledgement may have been written: no client can know.

Approach: a record waits for Kafka first (`_awaiting_kafka`), then for the spool (`_awaiting_spool`), and is reported as
unwritten when both deadlines have passed. A full Kafka, an open breaker or a topic fault sends a record to the spool at
once; without room in the spool the result is given at once. A single timer, `_end_overdue_waits`, serves all deadlines:
the wait is equal for all records of a queue, hence the queue is in the order of the deadlines, and only the front is
looked at.

Under load, records are handed to the producer in batches (docs/decisions/0017): a batch is sent when as many records
wait as are in flight, when 128 wait, or after 4 ms. A lone record is sent at once.

Invariants:

- A record is durable when Kafka's delivery report or the spool's fsync says so, and never before.
- `in_flight` and `_in_flight_bytes` count a record from `write` until the delivery report, not until the answer, since
  an answered record still takes room in the producer. Each record passes `_release` exactly once: with the delivery
  report, or where the producer never took the record.
- `on_result` is called in time, and again when a later report shows a durable record after all: the sender's retry is
  then recognised as a duplicate.
- A record in the spool is never taken back. If Kafka had the record already, the drainer writes a second copy, and the
  ledger finds a duplicate.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from schemas.codec import Message
from schemas.spooled import Spooled
from services.adapters.kafka.producer import ABOUT_THE_RECORD, UNSEEN, Ack, KafkaError, OnReport, QueueFull
from services.ingress.spools import Spools
from services.ingress.write_result import OnResult, RecentFailures, WriteResult

_TIMER_S: Final = 0.05
"""Interval of the one timer for all deadlines. Deadlines are set this much earlier, so that no wait is longer than its
limit."""

_BATCH_WAIT_S: Final = 0.004
"""The longest that a record waits for its batch, unless the event loop itself is blocked."""
_BATCH_MAX: Final = 128
"""Records that make a batch, whatever is in flight."""

FATAL: Final = "_FATAL"
"""librdkafka's name for the error of a producer that will never write again."""


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Caps and deadlines of writes.

    Attributes:
        wait_s: How long a record waits for Kafka's delivery report, seconds.
        spool_wait_s: How long a record then waits for the spool's fsync, seconds.
        records: Cap of the records in flight to Kafka.
        size_bytes: Cap of the values in flight to Kafka, bytes.
    """

    wait_s: float
    spool_wait_s: float
    records: int
    size_bytes: int


class RecordSender(Protocol):
    """The part of a `Producer` used by the writer."""

    def send(self, topic: str, message: Message, on_report: OnReport) -> None:
        """Hands a record to librdkafka."""

    def run_callbacks(self) -> None:
        """Calls back for every delivery report received until now."""


class _Outgoing:
    """A record between `write` and its last report.

    Attributes:
        sent_s: The loop's time when the record was handed to the producer; 0 before.
        due_s: The loop's time of the present deadline.
        at_kafka: True while Kafka's report decides the result; False before, and once the spool decides.
        answered: True once `on_result` was called.
    """

    __slots__ = ("_writer", "answered", "at_kafka", "due_s", "message", "on_result", "received_us", "sent_s", "topic")

    def __init__(self, writer: "Writer", topic: str, message: Message, received_us: int, on_result: OnResult) -> None:
        self._writer = writer
        self.topic = topic
        self.message = message
        self.received_us = received_us
        self.on_result = on_result
        self.sent_s = self.due_s = 0.0
        self.at_kafka = False
        self.answered = False

    def resolve(self, result: WriteResult) -> None:
        self.answered = True
        self.on_result(result)

    def on_delivery_report(self, result: Ack | KafkaError) -> None:
        """Receives Kafka's delivery report."""
        self._writer.on_delivery_report(self, result)

    def on_spool_report(self, kept: bool) -> None:  # noqa: FBT001 - a report's one word
        """Receives the spool's report."""
        # Kept, though late or after Kafka's report, is good news all the same. Not kept decides only where Kafka's late
        # report or the deadline has not decided before.
        if kept:
            self.resolve(WriteResult.SPOOLED)
        elif not self.answered:
            self.resolve(WriteResult.UNWRITTEN)


class Writer:
    """All writes of an ingress process. Use from the producer's event loop.

    Attributes:
        in_flight: Records accepted for Kafka and without a delivery report.
        failures: Predicts if the next record would fail; shown by `/readyz`.
    """

    def __init__(
        self,
        producer: RecordSender,
        limits: WriteLimits,
        on_failure: Callable[[str], None],
        spools: Spools | None = None,
        *,
        topic_fault: Callable[[str], str],
    ) -> None:
        """Wraps a producer.

        Args:
            producer: Writes to Kafka.
            limits: Caps and deadlines.
            on_failure: Called with librdkafka's reason for each failed write.
            spools: Takes records while Kafka is slow or away; None where no folder is declared durable.
            topic_fault: Returns the fault of a topic, given by full name, for which nothing may be written; empty text
                for none.
        """
        self._producer = producer
        self._limits = limits
        self._on_failure = on_failure
        self._spools = spools
        self._topic_fault = topic_fault
        self._loop = asyncio.get_running_loop()
        self._awaiting_kafka: deque[_Outgoing] = deque()
        self._awaiting_spool: deque[_Outgoing] = deque()
        self._timer_scheduled = False
        self._batch: deque[_Outgoing] = deque()
        self._batch_scheduled = False
        self.in_flight = 0
        self._in_flight_bytes = 0
        self.failures = RecentFailures()

    @property
    def full(self) -> bool:
        """True if a further record would be refused now."""
        return self._kafka_full and (self._spools is None or not self._spools.has_room)

    @property
    def pending(self) -> int:
        """Number of records in flight to Kafka or waiting for the spool."""
        return self.in_flight + len(self._awaiting_spool)

    @property
    def _kafka_full(self) -> bool:
        return self.in_flight >= self._limits.records or self._in_flight_bytes >= self._limits.size_bytes

    def write(self, topic: str, message: Message, received_us: int, on_result: OnResult) -> None:
        """Makes a record durable.

        Args:
            topic: Full name of the topic.
            message: The record.
            received_us: When the ingress received the delivery, microseconds UTC.
            on_result: Called with the result, within the limits; possibly before this returns.
        """
        outgoing = _Outgoing(self, topic, message, received_us, on_result)
        if self._kafka_full or (self._spools is not None and self._spools.preferred):
            self._spool(outgoing, WriteResult.REFUSED)
            return
        if why := self._topic_fault(topic):
            self._on_topic_fault(outgoing, why)
            return
        outgoing.due_s = self._loop.time() + self._limits.wait_s - _TIMER_S
        outgoing.at_kafka = True
        self.in_flight += 1
        self._in_flight_bytes += len(message.value)
        self._awaiting_kafka.append(outgoing)
        self._batch.append(outgoing)
        if self._batch_ready:
            self._send_batch()
        elif not self._batch_scheduled:
            self._batch_scheduled = True
            self._loop.call_later(_BATCH_WAIT_S, self._send_scheduled)
        self._schedule_timer()

    def send_best_effort(self, topic: str, message: Message, on_written: Callable[[bool], None]) -> None:
        """Writes a record without deadline and spool; gives up at once where `write` would use the spool.

        Args:
            topic: Full name of the topic.
            message: The record.
            on_written: Called with True if every in-sync replica has the record; possibly before this returns.
        """
        if self._kafka_full or self._topic_fault(topic) or (self._spools is not None and self._spools.preferred):
            on_written(False)
            return

        def report(result: Ack | KafkaError) -> None:
            if isinstance(result, KafkaError):
                self._on_failure(result.code)
            on_written(not isinstance(result, KafkaError))

        try:
            self._producer.send(topic, message, report)
        except KafkaError as error:
            report(error)

    @property
    def _batch_ready(self) -> bool:
        """True if as many records wait in the batch as are in flight beside them, or the batch is full.

        A lone record is thus sent at once, and the batches grow with the load: a request to the broker costs as much as
        several records.
        """
        waiting = len(self._batch)
        # `in_flight` includes the waiting records, hence twice.
        return waiting > 0 and (2 * waiting >= self.in_flight or waiting >= _BATCH_MAX)

    def _send_batch(self) -> None:
        """Hands the batch to the producer; an exception beside Kafka's leaves the rest for the next call."""
        now_s = self._loop.time()
        while self._batch:
            outgoing = self._batch.popleft()
            # The event loop was blocked, and the deadline passed before the record was sent. Sending it now would
            # write a record whose sender was answered 503, or one that the spool has too.
            if not outgoing.at_kafka or outgoing.due_s <= now_s:
                self._release(outgoing)
                if outgoing.at_kafka:
                    self._fall_back(outgoing)
                continue
            outgoing.sent_s = now_s
            try:
                self._producer.send(outgoing.topic, outgoing.message, outgoing.on_delivery_report)
            except KafkaError as error:
                # The producer took nothing, so no delivery report follows.
                self._release(outgoing)
                outgoing.at_kafka = False
                if isinstance(error, QueueFull):
                    self._spool(outgoing, WriteResult.REFUSED)
                else:
                    # Not to the spool: librdkafka refuses such a record for good.
                    self._on_failure(error.code)
                    outgoing.resolve(WriteResult.UNWRITTEN)
            except Exception:
                self._release(outgoing)
                raise

    def _send_scheduled(self) -> None:
        # The batch may be a younger one than the timer was set for. Sending it early does no harm.
        self._batch_scheduled = False
        self._send_batch()

    def _release(self, outgoing: _Outgoing) -> None:
        """Ends the record's share of `in_flight`; once a record."""
        self.in_flight -= 1
        self._in_flight_bytes -= len(outgoing.message.value)

    def on_delivery_report(self, outgoing: _Outgoing, result: Ack | KafkaError) -> None:
        """Takes Kafka's delivery report of a record, in time or late."""
        self._release(outgoing)
        if isinstance(result, KafkaError):
            self._on_failure(result.code)
            # A late failure changes nothing: the deadline has given the record to the spool.
            if outgoing.at_kafka:
                self._fall_back(outgoing, result.code)
        else:
            outgoing.at_kafka = False
            self.failures.clear()
            if self._spools is not None:
                now_s = self._loop.time()
                self._spools.acked(now_s, now_s - outgoing.sent_s)
            outgoing.resolve(WriteResult.WRITTEN)
        # Fewer records are in flight now, so the batch may be ready without a further `write`.
        if self._batch_ready:
            self._send_batch()

    def _fall_back(self, outgoing: _Outgoing, reason: str = "") -> None:
        """Gives a record to the spool after Kafka's refusal or deadline."""
        outgoing.at_kafka = False
        # A record that was never sent, or that Kafka refuses for its own sake, is no failure of Kafka's.
        if outgoing.sent_s and reason not in ABOUT_THE_RECORD:
            self._count_failure()
        self._spool(outgoing, WriteResult.UNWRITTEN)

    def _on_topic_fault(self, outgoing: _Outgoing, why: str) -> None:
        """Gives a record to the spool because the topic may not be written to."""
        self._on_failure(why)
        # Not seen yet means that Kafka has not answered since the start, so the breaker must learn of it. A topic that
        # is not as the table says is no failure of Kafka's.
        if why == UNSEEN:
            self._count_failure()
        self._spool(outgoing, WriteResult.UNWRITTEN)

    def _count_failure(self) -> None:
        """Counts a failure of Kafka, for `/readyz` and the breaker."""
        now_s = self._loop.time()
        self.failures.add(now_s)
        if self._spools is not None:
            self._spools.failed(now_s)

    def _spool(self, outgoing: _Outgoing, otherwise: WriteResult) -> None:
        """Gives a record to the spool; without room, resolves the record with `otherwise` at once."""
        spools = self._spools
        if spools is None or not spools.has_room:
            outgoing.resolve(otherwise)
            return
        outgoing.due_s = self._loop.time() + self._limits.spool_wait_s - _TIMER_S
        spools.append(Spooled(outgoing.topic, outgoing.message, outgoing.received_us), outgoing.on_spool_report)
        self._awaiting_spool.append(outgoing)
        self._schedule_timer()

    def _schedule_timer(self) -> None:
        # Never more than one timer: each would go on for as long as a record waits.
        if not self._timer_scheduled:
            self._timer_scheduled = True
            self._loop.call_later(_TIMER_S, self._end_overdue_waits)

    def _end_overdue_waits(self) -> None:
        """Ends waits beyond their deadline; runs every `_TIMER_S` while a record waits."""
        try:
            # Reports first: after the event loop was blocked, acknowledgements that came in time wait to be delivered,
            # and must not be taken for failures.
            self._producer.run_callbacks()
            self._expire(self._loop.time())
        finally:
            # Also after an exception, else the deadlines of all records would be lost with the timer.
            self._timer_scheduled = False
            if self._awaiting_kafka or self._awaiting_spool:
                self._schedule_timer()

    def _expire(self, now_s: float) -> None:
        # Records that were decided meanwhile stay in the queue until they are at the front.
        waiting = self._awaiting_kafka
        while waiting and (not waiting[0].at_kafka or waiting[0].due_s <= now_s):
            outgoing = waiting.popleft()
            if outgoing.at_kafka:
                self._fall_back(outgoing)
        waiting = self._awaiting_spool
        while waiting and (waiting[0].answered or waiting[0].due_s <= now_s):
            outgoing = waiting.popleft()
            if not outgoing.answered:
                if self._spools is not None:
                    self._spools.stalled = True
                outgoing.resolve(WriteResult.UNWRITTEN)
