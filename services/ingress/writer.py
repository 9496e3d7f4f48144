"""Durable writes with a deadline: a record is written when its delivery report says so, and not a moment before.

Rule: what is in flight is bounded in number and bytes until the report comes, not until we stop waiting; a report that
comes after the deadline is still told (`OnKnown`), so that the sender's retry is recognised as a duplicate.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.codec import Message
from services.adapters.kafka import Ack, KafkaError, OnReport, Producer, QueueFull

_SWEEP_S: Final = 0.05
"""One timer for all waits instead of one a request; a wait may be this much longer than the deadline."""

FATAL: Final = "_FATAL"
"""librdkafka's name for a producer that will never write again."""


OnKnown = Callable[[bool], None]
"""Told, in time or later, whether every in-sync replica has the record."""


class Fate(StrEnum):
    """What is known of a record when the sender must be answered."""

    WRITTEN = "written"
    """Every in-sync replica has it."""
    UNWRITTEN = "unwritten"
    """It was not written, or may not have been."""
    REFUSED = "refused"
    """There was no room for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be under way, and for how long."""

    wait_s: float
    records: int
    size_bytes: int


class Writer:
    """All writes of one ingress. Use from the loop that made the producer."""

    def __init__(self, producer: Producer, limits: Limits, on_failure: Callable[[str], None]) -> None:
        """Wrap a producer.

        Args:
            producer: Its delivery reports decide.
            limits: Caps and deadline.
            on_failure: Told librdkafka's reason of each record that was not written.
        """
        self._producer = producer
        self._limits = limits
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._waits: deque[tuple[float, asyncio.Future[Fate]]] = deque()
        self._sweeping = False
        self.in_flight = 0
        self._in_flight_bytes = 0

    @property
    def full(self) -> bool:
        """Whether no further record would be taken now."""
        return self.in_flight >= self._limits.records or self._in_flight_bytes >= self._limits.size_bytes

    async def write(self, topic: str, message: Message, on_known: OnKnown) -> Fate:
        """Write one record and wait for its report, at most as long as the limits say.

        Args:
            topic: Its whole name.
            message: The record.
            on_known: Told what the report says.
        """
        fate: asyncio.Future[Fate] = self._loop.create_future()
        if not self._send(topic, message, on_known, fate):
            return Fate.REFUSED
        self._waits.append((self._loop.time() + self._limits.wait_s, fate))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_S, self._sweep)
        return await fate

    def post(self, topic: str, message: Message, on_known: OnKnown) -> bool:
        """Write one record without waiting.

        Returns:
            Whether its fate is told to `on_known`: perhaps already, as not written, where the producer refused it at
            once. False when there was no room for it, and then nothing is told.
        """
        return self._send(topic, message, on_known, None)

    def _send(self, topic: str, message: Message, on_known: OnKnown, fate: asyncio.Future[Fate] | None) -> bool:
        if self.full:
            return False
        size = len(message.value)
        try:
            self._producer.send(topic, message, self._reporter(size, on_known, fate))
        except QueueFull:
            return False
        except KafkaError as error:
            self._on_failure(error.reason)
            on_known(False)
            _settle(fate, Fate.UNWRITTEN)
            return True
        self.in_flight += 1
        self._in_flight_bytes += size
        return True

    def _reporter(self, size: int, on_known: OnKnown, fate: asyncio.Future[Fate] | None) -> OnReport:
        def report(result: Ack | KafkaError) -> None:
            self.in_flight -= 1
            self._in_flight_bytes -= size
            if isinstance(result, KafkaError):
                self._on_failure(result.reason)
                on_known(False)
                _settle(fate, Fate.UNWRITTEN)
            else:
                on_known(True)
                _settle(fate, Fate.WRITTEN)

        return report

    def _sweep(self) -> None:
        now_s = self._loop.time()
        while self._waits and (self._waits[0][1].done() or self._waits[0][0] <= now_s):
            _settle(self._waits.popleft()[1], Fate.UNWRITTEN)
        self._sweeping = bool(self._waits)
        if self._sweeping:
            self._loop.call_later(_SWEEP_S, self._sweep)


def _settle(fate: asyncio.Future[Fate] | None, result: Fate) -> None:
    if fate is not None and not fate.done():
        fate.set_result(result)
