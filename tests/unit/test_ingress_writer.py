"""Reports on records that the producer refuses, and on records that wait too long."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

from schemas.codec import Message
from services.adapters.kafka.producer import KafkaError, OnReport, Producer
from services.adapters.process import logs
from services.adapters.process.clock import now_us
from services.ingress.spools import SpoolLimits, Spools
from services.ingress.telemetry import Telemetry
from services.ingress.write_result import RecentFailures, WriteResult
from services.ingress.writer import WriteLimits, Writer

TOO_LARGE = Message(None, b"x" * (2_097_152 + 1))


async def test_an_oversized_record_is_reported_unwritten_at_once() -> None:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=1000)
    reasons: list[str] = []
    known: list[bool] = []
    fates: list[WriteResult] = []
    writer = Writer(producer, WriteLimits(1.0, 0.4, 10, 1 << 26), reasons.append, topic_fault=lambda _: "")
    writer.send_best_effort("any", TOO_LARGE, known.append)
    writer.write("any", TOO_LARGE, 0, fates.append)
    assert (known, fates) == ([False], [WriteResult.UNWRITTEN])
    assert (reasons, writer.in_flight) == (["MSG_SIZE_TOO_LARGE"] * 2, 0)
    await producer.close(1.0)


async def test_records_are_batched_and_none_waits_for_a_missing_report() -> None:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=60_000)
    writer = Writer(producer, WriteLimits(60.0, 0.4, 1000, 1 << 26), lambda _: None, topic_fault=lambda _: "")
    handed_over = []
    for _ in range(11):
        writer.write("any", Message(None, b"x"), 0, lambda _: None)
        handed_over.append(producer.sent)
    assert handed_over == [1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8]
    assert writer.in_flight == 11
    async with asyncio.timeout(5):
        while producer.sent < 11:
            await asyncio.sleep(0.001)
    await producer.close(0.0)


async def test_an_expired_record_is_not_sent_to_kafka_after_its_answer() -> None:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=60_000)
    fates: list[WriteResult] = []
    writer = Writer(producer, WriteLimits(0.1, 0.4, 1000, 1 << 26), lambda _: None, topic_fault=lambda _: "")
    for _ in range(11):
        writer.write("any", Message(None, b"x"), 0, fates.append)
    time.sleep(0.2)
    async with asyncio.timeout(5):
        while len(fates) < 11:
            await asyncio.sleep(0.001)
    assert fates == [WriteResult.UNWRITTEN] * 11
    assert (producer.sent, writer.in_flight) == (8, 8), "three were never handed over, and are in flight no more"
    await producer.close(0.0)


async def test_an_expired_record_is_spooled_and_not_sent_to_kafka(tmp_path: Path) -> None:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=60_000)
    spools = await Spools.open(
        SpoolLimits(tmp_path, 1 << 26, 10**12, 1.0), Telemetry(logs.configure("test", "error")), now_us
    )
    fates: list[WriteResult] = []
    writer = Writer(producer, WriteLimits(0.1, 30.0, 1000, 1 << 26), lambda _: None, spools, topic_fault=lambda _: "")
    for _ in range(3):
        writer.write("any", Message(None, b"x"), 0, fates.append)
    assert producer.sent == 2
    time.sleep(0.2)
    writer._end_overdue_waits()  # its timer may be due before that of the company
    writer._send_batch()
    assert (producer.sent, writer.in_flight) == (2, 2)
    async with asyncio.timeout(10):
        while len(fates) < 3:
            await asyncio.sleep(0.001)
    assert fates == [WriteResult.SPOOLED] * 3
    assert spools.depth == 3
    await spools.end()
    await producer.close(0.0)


class Refusing:
    """A producer whose first report, a refusal, waits for `run_callbacks`; no further report comes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._first: OnReport | None = None
        self._has_sent = False
        self.settled_s: list[float] = []

    def send(self, topic: str, message: Message, on_report: OnReport) -> None:
        del topic, message
        if not self._has_sent:
            self._has_sent, self._first = True, on_report

    def run_callbacks(self) -> None:
        self.settled_s.append(self._loop.time())
        report, self._first = self._first, None
        if report is not None:
            report(KafkaError("_MSG_TIMED_OUT"))


async def test_one_timer_at_most_watches_the_deadlines(tmp_path: Path) -> None:
    producer = Refusing()
    spools = await Spools.open(
        SpoolLimits(tmp_path, 1 << 26, 10**12, 1.0), Telemetry(logs.configure("test", "error")), now_us
    )
    writer = Writer(producer, WriteLimits(60.0, 30.0, 1000, 1 << 26), lambda _: None, spools, topic_fault=lambda _: "")
    fates: list[WriteResult] = []
    for _ in range(2):
        writer.write("any", Message(None, b"x"), 0, fates.append)
    async with asyncio.timeout(10):
        while len(producer.settled_s) < 8 or not fates:
            await asyncio.sleep(0.001)
    assert fates == [WriteResult.SPOOLED]
    between_s = [later - sooner for sooner, later in pairwise(producer.settled_s[2:])]
    assert min(between_s) > 0.025, "every 50 ms, and not twice"
    await spools.end()


def test_three_failures_in_a_row_are_reported_for_a_while() -> None:
    failures = RecentFailures()
    for now_s in (1.0, 2.0):
        failures.add(now_s)
    assert failures.said(2.0) == ""
    failures.add(3.0)
    assert failures.said(3.0) == "the last 3 records were not acknowledged in time"
    assert failures.said(14.0) == ""
    failures.add(15.0)
    failures.clear()
    assert failures.said(15.0) == ""
