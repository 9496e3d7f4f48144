"""Dead letters of the ingress are counted when they are durable, and once."""

import asyncio
from itertools import product

import pytest

from schemas.codec import Message
from services.adapters.kafka.producer import KafkaError, OnReport
from services.adapters.process import logs, metrics
from services.ingress.telemetry import Telemetry
from services.ingress.write_result import OnResult, WriteResult
from services.ingress.writer import WriteLimits, Writer

REASON = "malformed"


def count() -> float:
    return next(
        sample.value
        for metric in metrics.INGRESS_DEAD_LETTERS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["reason"] == REASON
    )


def counting(results: list[WriteResult]) -> OnResult:
    return Telemetry(logs.configure("test", "error")).counting_letter(REASON, results.append)


class Failing:
    """A producer that reports each record as not delivered, at the next turn of the loop."""

    def send(self, topic: str, message: Message, on_report: OnReport) -> None:
        del topic, message
        asyncio.get_running_loop().call_soon(on_report, KafkaError("_MSG_TIMED_OUT"))

    def run_callbacks(self) -> None:
        """Nothing is kept back."""


async def test_letters_that_kafka_does_not_take_are_not_counted() -> None:
    metrics.INGRESS_DEAD_LETTERS.labels(REASON)
    before, results = count(), list[WriteResult]()
    writer = Writer(Failing(), WriteLimits(0.1, 0.1, 10, 1 << 20), lambda _: None, topic_fault=lambda _: "")
    for _ in range(6):  # a delivery and its five retries
        writer.write("dead-letters", Message(None, b"{"), 0, counting(results))
    async with asyncio.timeout(5):
        while len(results) < 6:
            await asyncio.sleep(0.001)
    assert results == [WriteResult.UNWRITTEN] * 6
    assert count() == before


@pytest.mark.parametrize(("first", "second"), [*product(WriteResult, WriteResult)])
def test_a_letter_is_counted_once_by_whichever_report_says_that_it_is_durable(
    first: WriteResult, second: WriteResult
) -> None:
    metrics.INGRESS_DEAD_LETTERS.labels(REASON)
    before, results = count(), list[WriteResult]()
    on_result = counting(results)
    on_result(first)
    on_result(second)
    assert results == [first, second]
    assert count() - before == bool({first, second} & {WriteResult.WRITTEN, WriteResult.SPOOLED})
