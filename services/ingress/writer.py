"""Durable writes with a deadline: to Kafka, or to the spool while Kafka is slow or away.

Rule: a record is durable when Kafka's delivery report or the spool's fsync says so, and not a moment before. What is in
flight is bounded in number and bytes until the report comes, not until we stop waiting; a report that comes after the
answer is still told, so that the sender's retry is recognised as a duplicate. What Kafka did not acknowledge in time
may have been written all the same: it is spooled, and what then stands there twice is a duplicate.
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

_SWEEP_S: Final = 0.05
"""One timer for all waits instead of one a request; a wait may be this much shorter than it might be."""

_BATCH_WAIT_S: Final = 0.004
_BATCH_MAX: Final = 128
"""How long a record waits for company at most, unless the loop itself stands still, and for how many."""

FATAL: Final = "_FATAL"
"""librdkafka's name for a producer that will never write again."""


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """How much may be under way, and for how long."""

    wait_s: float
    spool_wait_s: float
    records: int
    size_bytes: int


class RecordSender(Protocol):
    """What is asked of a `Producer` here."""

    def send(self, topic: str, message: Message, on_report: OnReport) -> None:
        """Hand one record over."""

    def settle(self) -> None:
        """Tell every report that has come."""


class _Outgoing:
    """One record on its way."""

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

    def tell(self, result: WriteResult) -> None:
        self.answered = True
        self.on_result(result)

    def reported(self, result: Ack | KafkaError) -> None:
        """Kafka's."""
        self._writer.reported(self, result)

    def spooled(self, kept: bool) -> None:  # noqa: FBT001 - a report's one word
        """The spool's."""
        if kept:
            self.tell(WriteResult.SPOOLED)
        elif not self.answered:
            self.tell(WriteResult.UNWRITTEN)


class Writer:
    """All writes of one ingress. Use from the loop that made the producer."""

    def __init__(
        self,
        producer: RecordSender,
        limits: WriteLimits,
        on_failure: Callable[[str], None],
        spools: Spools | None = None,
    ) -> None:
        """Wrap a producer.

        Args:
            producer: Its delivery reports decide.
            limits: Caps and deadlines.
            on_failure: Told librdkafka's reason of each record that was not written.
            spools: Where records go while Kafka is slow or away; None where no folder is declared durable.
        """
        self._producer = producer
        self._limits = limits
        self._on_failure = on_failure
        self._spools = spools
        self._loop = asyncio.get_running_loop()
        self._for_kafka: deque[_Outgoing] = deque()
        self._for_spool: deque[_Outgoing] = deque()
        self._sweeping = False
        self._gathered: deque[_Outgoing] = deque()
        self._gathering = False
        self.in_flight = 0
        self._in_flight_bytes = 0
        self.failures = RecentFailures()
        self.topic_fault: Callable[[str], str] = lambda _: ""
        """Asked before a record is sent: why nothing may be written to its topic; empty text when it may."""

    @property
    def full(self) -> bool:
        """Whether no further record would be taken now."""
        return self._kafka_full and (self._spools is None or not self._spools.has_room)

    @property
    def pending(self) -> int:
        """Records whose result is not told yet."""
        return self.in_flight + len(self._for_spool)

    @property
    def _kafka_full(self) -> bool:
        return self.in_flight >= self._limits.records or self._in_flight_bytes >= self._limits.size_bytes

    def write(self, topic: str, message: Message, received_us: int, on_result: OnResult) -> None:
        """Make one record durable.

        Args:
            topic: Its whole name.
            message: The record.
            received_us: When the ingress had it, microseconds UTC.
            on_result: Told its result, within the limits; perhaps at once.
        """
        going = _Outgoing(self, topic, message, received_us, on_result)
        if self._kafka_full or (self._spools is not None and self._spools.preferred):
            self._spool(going, WriteResult.REFUSED)
            return
        if why := self.topic_fault(topic):
            self._closed(going, why)
            return
        going.due_s = self._loop.time() + self._limits.wait_s - _SWEEP_S
        going.at_kafka = True
        self.in_flight += 1
        self._in_flight_bytes += len(message.value)
        self._for_kafka.append(going)
        self._gathered.append(going)
        if self._enough:
            self._set_out()
        elif not self._gathering:
            self._gathering = True
            self._loop.call_later(_BATCH_WAIT_S, self._set_out_late)
        if not self._sweeping:
            self._sweep()

    def send_best_effort(self, topic: str, message: Message, on_known: Callable[[bool], None]) -> None:
        """Write one record without waiting; it is never spooled, and not tried where there is no room.

        Args:
            topic: Its whole name.
            message: The record.
            on_known: Told whether every in-sync replica has it, perhaps at once.
        """
        if self._kafka_full or self.topic_fault(topic) or (self._spools is not None and self._spools.preferred):
            on_known(False)
            return

        def report(result: Ack | KafkaError) -> None:
            if isinstance(result, KafkaError):
                self._on_failure(result.code)
            on_known(not isinstance(result, KafkaError))

        try:
            self._producer.send(topic, message, report)
        except KafkaError as error:
            report(error)

    @property
    def _enough(self) -> bool:
        """Whether what has gathered sets out: as many wait as are on their way.

        So a record alone sets out at once, and the more there are, the more travel together: a request to the broker
        costs as much as several records.
        """
        waiting = len(self._gathered)
        return waiting > 0 and (2 * waiting >= self.in_flight or waiting >= _BATCH_MAX)

    def _set_out(self) -> None:
        """Hand over what has gathered; an error that is none of Kafka's leaves the rest for the next time."""
        now_s = self._loop.time()
        while self._gathered:
            going = self._gathered.popleft()
            if not going.at_kafka or going.due_s <= now_s:  # the loop stood still: the spool has it, or gets it
                self._arrived(going)
                if going.at_kafka:
                    self._not_in_time(going)
                continue
            going.sent_s = now_s
            try:
                self._producer.send(going.topic, going.message, going.reported)
            except KafkaError as error:
                self._arrived(going)
                going.at_kafka = False
                if isinstance(error, QueueFull):
                    self._spool(going, WriteResult.REFUSED)
                else:
                    self._on_failure(error.code)
                    going.tell(WriteResult.UNWRITTEN)
            except Exception:
                self._arrived(going)
                raise

    def _set_out_late(self) -> None:
        self._gathering = False  # what gathered since the timer was set sets out early: no harm
        self._set_out()

    def _arrived(self, going: _Outgoing) -> None:
        """It is in flight no more."""
        self.in_flight -= 1
        self._in_flight_bytes -= len(going.message.value)

    def reported(self, going: _Outgoing, result: Ack | KafkaError) -> None:
        """Kafka's delivery report of a record, in time or late."""
        self._arrived(going)
        if isinstance(result, KafkaError):
            self._on_failure(result.code)
            if going.at_kafka:
                self._not_in_time(going, result.code)
        else:
            going.at_kafka = False
            self.failures.clear()
            if self._spools is not None:
                now_s = self._loop.time()
                self._spools.acked(now_s, now_s - going.sent_s)
            going.tell(WriteResult.WRITTEN)
        if self._enough:
            self._set_out()

    def _not_in_time(self, going: _Outgoing, reason: str = "") -> None:
        """Kafka has not acknowledged it in time, or refused it: the spool's turn."""
        going.at_kafka = False
        if going.sent_s and reason not in ABOUT_THE_RECORD:
            self._failed()
        self._spool(going, WriteResult.UNWRITTEN)

    def _closed(self, going: _Outgoing, why: str) -> None:
        """Its topic may not be written to."""
        self._on_failure(why)
        if why == UNSEEN:  # Kafka has not answered since we began
            self._failed()
        self._spool(going, WriteResult.UNWRITTEN)

    def _failed(self) -> None:
        """Kafka did not do its part."""
        now_s = self._loop.time()
        self.failures.add(now_s)
        if self._spools is not None:
            self._spools.failed(now_s)

    def _spool(self, going: _Outgoing, otherwise: WriteResult) -> None:
        spools = self._spools
        if spools is None or not spools.has_room:
            going.tell(otherwise)
            return
        going.due_s = self._loop.time() + self._limits.spool_wait_s - _SWEEP_S
        spools.append(Spooled(going.topic, going.message, going.received_us), going.spooled)
        self._for_spool.append(going)
        if not self._sweeping:
            self._sweep()

    def _sweep(self) -> None:
        """Answer what has waited long enough; what was answered meanwhile only stood in the row."""
        try:
            self._producer.settle()
            self._expire(self._loop.time())
        finally:
            self._sweeping = bool(self._for_kafka or self._for_spool)
            if self._sweeping:
                self._loop.call_later(_SWEEP_S, self._sweep)

    def _expire(self, now_s: float) -> None:
        waits = self._for_kafka
        while waits and (not waits[0].at_kafka or waits[0].due_s <= now_s):
            going = waits.popleft()
            if going.at_kafka:
                self._not_in_time(going)
        waits = self._for_spool
        while waits and (waits[0].answered or waits[0].due_s <= now_s):
            going = waits.popleft()
            if not going.answered:
                if self._spools is not None:
                    self._spools.stalled = True
                going.tell(WriteResult.UNWRITTEN)
